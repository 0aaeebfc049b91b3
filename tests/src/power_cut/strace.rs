//! Runs a victim under strace and reads its operations on one directory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Calls to trace: those that reach the disk or print a line, and those that the model does not
/// know. The latter fail a test instead of being overlooked.
const CALLS: &str = "openat,open,creat,pwrite64,write,pwritev,pwritev2,writev,lseek,ftruncate,\
    truncate,fallocate,fsync,fdatasync,sync_file_range,rename,renameat,renameat2,unlink,unlinkat,\
    mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,copy_file_range,sendfile,splice,mmap,\
    io_uring_setup,dup,dup2,dup3";

/// Line for a thread that ended with its process before strace saw it make a call. It changed
/// nothing, or the later comparison with the directory fails.
const UNTRACED_THREAD: &str = "???( <detached ...>";

/// Event of a trace. Paths are relative to the traced directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The victim printed a line.
    Line(String),
    MakeFile(PathBuf),
    MakeDir(PathBuf),
    Write {
        path: PathBuf,
        offset: u64,
        bytes: Vec<u8>,
    },
    SetLength {
        path: PathBuf,
        length: u64,
    },
    /// An fsync or fdatasync that returned. It covers only what was complete before event number
    /// `begun`.
    Sync {
        path: PathBuf,
        begun: usize,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove(PathBuf),
    /// In the trace of a mutant: a call that was left out.
    Nothing,
}

/// All events of one directory, in order.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    pub events: Vec<Event>,
}

impl Trace {
    /// Runs `victim`, which works in `root`, to its end and adds its events. A second process on
    /// the same directory can be added to the same trace.
    pub fn record(&mut self, root: &Path, victim: &mut Command) -> Result<()> {
        let root = root.canonicalize().context("the directory to watch")?;
        let log = tempfile::NamedTempFile::new()?;
        let output = Command::new("strace")
            .args(["-f", "-y", "-xx", "-qq", "-s", "16777216", "-e", "signal=none"])
            .args(["-e", &format!("trace={CALLS}"), "-o"])
            .arg(log.path())
            .arg("--")
            .arg(victim.get_program())
            .args(victim.get_args())
            .stdin(Stdio::null())
            .output()
            .context("run strace (Debian package strace)")?;
        ensure!(
            output.status.success(),
            "the victim failed under strace: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let text = std::fs::read_to_string(log.path()).context("read what strace wrote")?;
        let mut reader =
            Reader { root, trace: self, begun: HashMap::new(), positions: HashMap::new() };
        for line in text.lines() {
            reader.line(line).with_context(|| excerpt(line))?;
        }
        Ok(())
    }
}

struct Reader<'a> {
    root: PathBuf,
    trace: &'a mut Trace,
    /// By thread: the first half of an unfinished call, and the number of events at its start.
    begun: HashMap<String, (String, usize)>,
    /// Offset of the next `write`, by descriptor.
    positions: HashMap<i64, u64>,
}

impl Reader<'_> {
    fn line(&mut self, line: &str) -> Result<()> {
        let (thread, rest) = line.split_once(' ').context("no thread")?;
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") || rest == UNTRACED_THREAD {
            return Ok(());
        }
        let now = self.trace.events.len();
        if let Some(head) = rest.strip_suffix(" <unfinished ...>") {
            self.begun.insert(thread.to_owned(), (head.to_owned(), now));
            return Ok(());
        }
        if rest.starts_with("<... ") {
            let (_, tail) = rest.split_once(" resumed>").context("no end of the name")?;
            let (head, begun) = self.begun.remove(thread).context("no beginning")?;
            return self.call(&format!("{head}{tail}"), begun);
        }
        self.call(rest, now)
    }

    fn call(&mut self, text: &str, begun: usize) -> Result<()> {
        let (name, rest) = text.split_once('(').context("no call")?;
        let (inside, result) = rest.rsplit_once(") ").context("no end")?;
        let result = result.trim_start().strip_prefix("= ").context("no result")?;
        if result.starts_with('-') || result.starts_with('?') {
            return Ok(()); // it failed and changed nothing, or the process ended in it
        }
        let arguments: Vec<&str> = inside.split(", ").collect();
        self.succeeded(&Call { name, arguments, result, begun })
    }

    fn succeeded(&mut self, call: &Call<'_>) -> Result<()> {
        match call.name {
            "openat" => self.open(call, 1),
            "open" => self.open(call, 0),
            "write" | "pwrite64" => self.write(call),
            "lseek" => {
                self.positions.insert(call.descriptor()?.0, call.number_of(call.result)?);
                Ok(())
            }
            "ftruncate" => self.at(&call.descriptor()?.1, |path| {
                Ok(Event::SetLength { path, length: call.number(1)? })
            }),
            "fsync" | "fdatasync" => {
                self.at(&call.descriptor()?.1, |path| Ok(Event::Sync { path, begun: call.begun }))
            }
            "sync_file_range" => Ok(()),
            "rename" => self.rename(&call.path(0)?, &call.path(1)?),
            "renameat" | "renameat2" => self.rename(&call.path_at(0, 1)?, &call.path_at(2, 3)?),
            "unlink" | "rmdir" => self.at(&call.path(0)?, |path| Ok(Event::Remove(path))),
            "unlinkat" => self.at(&call.path_at(0, 1)?, |path| Ok(Event::Remove(path))),
            "mkdir" => self.at(&call.path(0)?, |path| Ok(Event::MakeDir(path))),
            "mkdirat" => self.at(&call.path_at(0, 1)?, |path| Ok(Event::MakeDir(path))),
            "mmap" if !call.arguments.iter().any(|a| a.contains("MAP_SHARED")) => Ok(()),
            "dup" | "dup2" | "dup3" => self.reject_inside(call, &call.descriptor()?.1),
            _ => self.reject(call),
        }
    }

    fn open(&mut self, call: &Call<'_>, path: usize) -> Result<()> {
        let flags = call.argument(path + 1)?;
        let (descriptor, opened) = parse_descriptor(call.result)?;
        let Some(path) = self.inside(&opened) else { return Ok(()) };
        ensure!(!flags.contains("O_APPEND"), "appending is not modelled");
        self.positions.insert(descriptor, 0);
        if flags.contains("O_CREAT") {
            self.trace.events.push(Event::MakeFile(path.clone()));
        }
        if flags.contains("O_TRUNC") {
            self.trace.events.push(Event::SetLength { path, length: 0 });
        }
        Ok(())
    }

    fn write(&mut self, call: &Call<'_>) -> Result<()> {
        let (descriptor, path) = call.descriptor()?;
        let mut bytes = unquote(call.argument(1)?)?;
        bytes.truncate(usize::try_from(call.number_of(call.result)?)?);
        if descriptor == 1 && call.name == "write" {
            let text = String::from_utf8(bytes)?;
            self.trace.events.extend(text.lines().map(|line| Event::Line(line.to_owned())));
            return Ok(());
        }
        let Some(path) = self.inside(&path) else { return Ok(()) };
        let offset = if call.name == "pwrite64" {
            call.number(3)?
        } else {
            let position = self.positions.get_mut(&descriptor).context("an unknown descriptor")?;
            *position += bytes.len() as u64;
            *position - bytes.len() as u64
        };
        self.trace.events.push(Event::Write { path, offset, bytes });
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<()> {
        match (self.inside(from), self.inside(to)) {
            (Some(from), Some(to)) => self.trace.events.push(Event::Rename { from, to }),
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => bail!("a name crosses the directory's border"),
        }
        Ok(())
    }

    /// Adds the event that `make` returns, if `path` is in the directory.
    fn at(&mut self, path: &Path, make: impl FnOnce(PathBuf) -> Result<Event>) -> Result<()> {
        if let Some(path) = self.inside(path) {
            self.trace.events.push(make(path)?);
        }
        Ok(())
    }

    fn reject_inside(&self, call: &Call<'_>, path: &Path) -> Result<()> {
        ensure!(self.inside(path).is_none(), "{} is not modelled", call.name);
        Ok(())
    }

    /// Rejects a call that the model does not know, if it concerns the directory.
    fn reject(&self, call: &Call<'_>) -> Result<()> {
        for argument in &call.arguments {
            if let Ok((_, path)) = parse_descriptor(argument) {
                self.reject_inside(call, &path)?;
            } else if let Ok(path) = parse_path(argument) {
                self.reject_inside(call, &path)?;
            }
        }
        ensure!(call.name != "io_uring_setup", "io_uring cannot be traced");
        Ok(())
    }

    fn inside(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(&self.root).ok().map(Path::to_owned)
    }
}

struct Call<'a> {
    name: &'a str,
    arguments: Vec<&'a str>,
    result: &'a str,
    begun: usize,
}

impl Call<'_> {
    fn argument(&self, at: usize) -> Result<&str> {
        self.arguments.get(at).copied().context("an argument is missing")
    }

    fn number(&self, at: usize) -> Result<u64> {
        self.number_of(self.argument(at)?)
    }

    #[expect(clippy::unused_self, reason = "reads like the other accessors")]
    fn number_of(&self, text: &str) -> Result<u64> {
        text.parse().with_context(|| format!("{text:?} is not a number"))
    }

    fn descriptor(&self) -> Result<(i64, PathBuf)> {
        parse_descriptor(self.argument(0)?)
    }

    fn path(&self, at: usize) -> Result<PathBuf> {
        parse_path(self.argument(at)?)
    }

    /// Returns a path that may be relative to the directory in another argument.
    fn path_at(&self, directory: usize, path: usize) -> Result<PathBuf> {
        let path = self.path(path)?;
        let (_, close) = self.argument(directory)?.split_once('<').context("no directory")?;
        let directory = PathBuf::from(String::from_utf8(unescape(close.trim_end_matches('>'))?)?);
        Ok(directory.join(path)) // an absolute path wins
    }
}

/// Parses `3<\x2f\x74>`: a descriptor and its path.
fn parse_descriptor(text: &str) -> Result<(i64, PathBuf)> {
    let (number, rest) = text.split_once('<').context("not a descriptor")?;
    let path = rest.split_once('>').context("not a descriptor")?.0;
    let path = String::from_utf8(unescape(path)?)?;
    Ok((number.parse().context("not a descriptor")?, PathBuf::from(path)))
}

fn parse_path(text: &str) -> Result<PathBuf> {
    Ok(PathBuf::from(String::from_utf8(unquote(text)?)?))
}

fn unquote(text: &str) -> Result<Vec<u8>> {
    let inside = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    unescape(inside.context("not a whole string")?)
}

/// Decodes hexadecimal escapes. What `-y` adds to pipes and sockets has none.
fn unescape(text: &str) -> Result<Vec<u8>> {
    if !text.starts_with("\\x") {
        return Ok(text.as_bytes().to_vec());
    }
    text.as_bytes()
        .chunks(4)
        .map(|code| {
            let digits = code.strip_prefix(b"\\x").context("not hexadecimal")?;
            Ok(u8::from_str_radix(std::str::from_utf8(digits)?, 16)?)
        })
        .collect()
}

fn excerpt(line: &str) -> String {
    format!("strace wrote: {}", line.chars().take(300).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Result<Vec<Event>> {
        let mut trace = Trace::default();
        let root = PathBuf::from("/r");
        let mut reader =
            Reader { root, trace: &mut trace, begun: HashMap::new(), positions: HashMap::new() };
        lines.iter().try_for_each(|line| reader.line(line))?;
        Ok(trace.events)
    }

    /// One of some hundred victims ended like this, and its whole recording was rejected.
    #[test]
    fn a_thread_that_was_never_seen_is_passed_over_and_a_call_without_an_end_is_not() {
        let sync = r"7 fsync(3<\x2f\x72\x2f\x61>) = 0";
        let synced = [Event::Sync { path: PathBuf::from("a"), begun: 0 }];
        assert_eq!(read(&["21420 ???( <detached ...>", sync]).unwrap(), synced);
        assert!(read(&[r"7 fsync(3<\x2f\x72\x2f\x61> <detached ...>"]).is_err());
    }
}
