//! The configuration file: reads it, and rejects one that other users can read. Its contents are
//! checked by `muster_config`.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_config::{Config, ConfigError, Document, MAX_BYTES};
use muster_pki::token::Token;
use muster_types::NodeName;
use ring::digest;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::name::NameSources;
use crate::fatal::Fatal;

/// Time limit for a program that passes the configuration through a FIFO.
const FIFO_TIMEOUT: Duration = Duration::from_secs(10);

/// The configuration file of this node.
#[derive(Debug)]
pub(super) struct ConfigFile {
    path: PathBuf,
    text: String,
}

/// The configuration of a node, as far as the document alone decides.
#[derive(Debug)]
pub(super) struct Configured {
    pub(super) config: Config,
    /// The token, or the problems that make it unusable. A member does not need it.
    pub(super) token: Result<Token, ConfigError>,
    /// The part of the document that decides the role.
    pub(super) role_origin: String,
}

impl ConfigFile {
    pub(super) fn read(path: &Path) -> Result<Self, Fatal> {
        Ok(Self { path: path.to_owned(), text: read(path)? })
    }

    /// Returns the name that the document gives to this node.
    pub(super) fn hostname(&self) -> Result<Option<NodeName>, Fatal> {
        // Parsed as strictly as it must be for every node.
        match Document::parse_without_token(&self.text) {
            Ok(document) => Ok(document.hostname()),
            Err(error) => Err(self.invalid(self.strict().err().unwrap_or(error))),
        }
    }

    /// Returns the state directory that the document gives to a node of this name. The name may not
    /// be known yet: then the document's, without the patches for other names.
    pub(super) fn state_dir(&self, sources: &NameSources) -> Result<PathBuf, Fatal> {
        let name = match sources.provisional() {
            Some(name) => name,
            None => "localhost".parse().expect("a node name"),
        };
        Ok(self.effective(&name)?.config.state_dir)
    }

    /// Returns the configuration of the node with that name.
    pub(super) fn effective(&self, name: &NodeName) -> Result<Configured, Fatal> {
        let strict = self
            .strict()
            .and_then(|document| Ok((document.effective(name)?, document.role_origin(name))));
        let problems = match strict {
            Ok((config, role_origin)) => {
                let token = config.token.expose().parse().map_err(|error| {
                    // The document was checked with the same parser.
                    Fatal::Machine(format!("machine.token: {error}"))
                })?;
                return Ok(Configured { config, token: Ok(token), role_origin });
            }
            Err(problems) => problems,
        };
        let without = Document::parse_without_token(&self.text)
            .and_then(|document| Ok((document.effective(name)?, document.role_origin(name))))
            .ok()
            .filter(|_| problems.concerns_only_tokens());
        match without {
            Some((config, role_origin)) => {
                Ok(Configured { config, token: Err(problems), role_origin })
            }
            None => Err(self.invalid(problems)),
        }
    }

    /// The error for a node that cannot start with this file.
    pub(super) fn invalid(&self, source: ConfigError) -> Fatal {
        Fatal::Config { path: self.path.clone(), source }
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        let digest = digest::digest(&digest::SHA256, self.text.as_bytes());
        digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// Describes problems in this file, a line for each.
    pub(super) fn describe(&self, problems: &ConfigError) -> String {
        problems.in_file(&self.path.display().to_string())
    }

    fn strict(&self) -> Result<Document, ConfigError> {
        Document::parse(&self.text, &|token| {
            token.parse::<Token>().map(drop).map_err(|error| error.to_string())
        })
    }
}

/// Returns the text of the configuration file.
fn read(path: &Path) -> Result<String, Fatal> {
    let read = |source| Fatal::ReadConfig { path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(read)?;
    if meta.is_dir() {
        return Err(read(io::Error::other("it is a directory; give the file with --config")));
    }
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Fatal::Machine(format!(
            "the configuration {} has mode {mode:04o}, so other users can read the token in it; if \
             none has, run `chmod 0600` on it",
            path.display()
        )));
    }
    // Reads one byte more than allowed, so that the parser reports a file that is too long.
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    // Opening a FIFO without a writer would block.
    let mut options = fs::OpenOptions::new();
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = options.read(true).custom_flags(nonblocking).open(path).map_err(read)?;
    if meta.file_type().is_fifo() {
        wait_for_writer(&file).map_err(read)?;
    }
    rustix::io::ioctl_fionbio(&file, false).map_err(|error| read(error.into()))?;
    let mut bytes = Vec::new();
    io::Read::take(file, limit).read_to_end(&mut bytes).map_err(read)?;
    String::from_utf8(bytes).map_err(|error| read(io::Error::other(describe_encoding(&error))))
}

/// Waits for the first bytes of a FIFO.
fn wait_for_writer(file: &fs::File) -> io::Result<()> {
    let timeout = Timespec::try_from(FIFO_TIMEOUT).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&timeout))? {
        0 => Err(io::Error::other(format!("nothing was written to this FIFO in {FIFO_TIMEOUT:?}"))),
        _ => Ok(()),
    }
}

/// Says what is wrong with a text that is not UTF-8. The text itself is secret.
fn describe_encoding(error: &std::string::FromUtf8Error) -> String {
    let bytes = error.as_bytes();
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return "it is UTF-16; save it as UTF-8".to_owned();
    }
    let valid = &bytes[..error.utf8_error().valid_up_to()];
    let line = 1 + valid.split(|byte| *byte == b'\n').count().saturating_sub(1);
    format!("line {line} is not UTF-8; save the file as UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        muster_types::error::chain(&read(path).unwrap_err())
    }

    #[test]
    fn a_file_that_is_none_is_named() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("directory");
        fs::create_dir(&directory).unwrap();
        assert!(refusal(&directory).contains("it is a directory"), "{}", refusal(&directory));
        let path = root.path().join("node.yaml");
        let text = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            refusal(&path)
        };
        assert!(text(&[0xFF, 0xFE, b'a', 0]).contains("it is UTF-16; save it as UTF-8"));
        assert!(text(b"a: b\n# caf\xE9\n").contains("line 2 is not UTF-8"));
    }

    /// The start hung, `--check` too.
    #[test]
    fn a_fifo_without_a_writer_is_refused_after_a_while() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        assert!(refusal(&path).contains("nothing was written to this FIFO"));
        let writer = std::thread::spawn({
            let path = path.clone();
            move || fs::write(path, "text").unwrap()
        });
        assert_eq!(read(&path).unwrap(), "text");
        writer.join().unwrap();
    }
}
