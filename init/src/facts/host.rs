//! Host name, boot id, disk space and memory.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One boot of one machine: the kernel draws it at random (`/proc/sys/kernel/random/boot_id`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BootId(String);

impl BootId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BootId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("{:?} is not a boot id", text.chars().take(40).collect::<String>()))
        }
    }
}

impl TryFrom<String> for BootId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<BootId> for String {
    fn from(id: BootId) -> Self {
        id.0
    }
}

/// A fact that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FactError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("unexpected content in {}: {content}", path.display())]
    Unexpected { path: PathBuf, content: String },
}

impl FactError {
    fn read(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Read { path: path.to_owned(), source }
    }
}

/// Host name from the kernel, lower case, up to the first dot. It may not be a valid DNS label.
pub fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.split('.').next().unwrap_or_default().to_ascii_lowercase()
}

/// Identifier of the current boot.
pub fn boot_id() -> Result<BootId, FactError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path).map_err(FactError::read(path))?;
    text.trim().parse().map_err(|content| FactError::Unexpected { path: path.to_owned(), content })
}

/// Size in bytes: total and free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub total: u64,
    /// Bytes that an unprivileged process can still use.
    pub free: u64,
}

/// Space on the file system that holds this path.
pub fn space(path: &Path) -> Result<Space, FactError> {
    let stat = rustix::fs::statvfs(path).map_err(|e| FactError::read(path)(e.into()))?;
    let block = stat.f_frsize;
    let bytes = |blocks: u64| blocks.saturating_mul(block);
    Ok(Space { total: bytes(stat.f_blocks), free: bytes(stat.f_bavail) })
}

/// Main memory; `free` is what the kernel could hand out without swapping.
pub fn memory() -> Result<Space, FactError> {
    let path = Path::new("/proc/meminfo");
    let text = fs::read_to_string(path).map_err(FactError::read(path))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).map(str::trim);
        kib.and_then(|kib| kib.parse::<u64>().ok()).map(|kib| kib.saturating_mul(1024)).ok_or_else(
            || FactError::Unexpected { path: path.to_owned(), content: format!("no {name}") },
        )
    };
    Ok(Space { total: field("MemTotal:")?, free: field("MemAvailable:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_answers() {
        assert!(!hostname().is_empty() && !hostname().contains('.'));
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        let memory = memory().unwrap();
        assert!(memory.free > 0 && memory.free <= memory.total);
        let disk = space(Path::new("/")).unwrap();
        assert!(disk.total > 0 && disk.free <= disk.total);
        assert!(space(Path::new("/nowhere")).unwrap_err().to_string().contains("/nowhere"));
    }

    #[test]
    fn a_boot_id_is_a_uuid() {
        assert!("b8773d77-e856-40dc-ad4c-62bc742ca660".parse::<BootId>().is_ok());
        assert!("b8773d77".parse::<BootId>().is_err());
        assert!(serde_json::from_str::<BootId>("\"x\"").is_err());
    }
}
