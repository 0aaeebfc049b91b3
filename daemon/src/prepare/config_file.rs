//! The configuration file: reads it, and rejects one that other users can read. Its contents are
//! checked by `muster_config`.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use muster_config::{Config, ConfigError, Document, MAX_BYTES};
use muster_pki::token::Token;
use muster_types::NodeName;
use ring::digest;

use super::name::NameSources;
use crate::fatal::Fatal;

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
    let file = fs::File::open(path).map_err(read)?;
    io::read_to_string(io::Read::take(file, limit)).map_err(read)
}
