//! Locates etcd's programs on this machine, reads their version and rejects old ones.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// Oldest version with learners (3.4.0, August 2019).
pub const OLDEST: Version = Version { major: 3, minor: 4, patch: 0 };

/// Timeout for a program to print its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Install directories searched after `PATH`: a service may be started without `PATH`.
const INSTALL_DIRECTORIES: &[&str] =
    &["/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin", "/bin"];

/// A version of etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = ();

    /// Parses three numbers; ignores a suffix (`-rc.1`, `+git`).
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '.');
        let mut number = || {
            let part = parts.next().ok_or(())?;
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse().map_err(|_| ())
        };
        Ok(Self { major: number()?, minor: number()?, patch: number()? })
    }
}

/// A program of the etcd distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// The server.
    Etcd,
    /// The client.
    Etcdctl,
    /// Offline tool for data directories, since 3.5; before that `etcdctl` does its work.
    Etcdutl,
}

impl Tool {
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Etcdctl => "etcdctl",
            Self::Etcdutl => "etcdutl",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Etcd => "etcd-server",
            Self::Etcdctl | Self::Etcdutl => "etcd-client",
        }
    }

    fn version_argument(self) -> &'static str {
        match self {
            Self::Etcd => "--version",
            Self::Etcdctl | Self::Etcdutl => "version",
        }
    }
}

/// An installed program that is new enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    pub path: PathBuf,
    pub version: Version,
}

/// Reason why a program cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    #[error(
        "no {program} on PATH: install it (Debian: apt install {package}) or set \
         machine.etcd.binary"
    )]
    Missing { program: &'static str, package: &'static str },
    #[error("{} is not an executable file (machine.etcd.binary)", path.display())]
    NotExecutable { path: PathBuf },
    #[error("cannot run {} to learn its version", path.display())]
    Run { path: PathBuf, source: io::Error },
    #[error("{} did not print its version within {VERSION_TIMEOUT:?}", path.display())]
    VersionTimeout { path: PathBuf },
    #[error("{} printed no etcd version: {printed:?}; is it etcd?", path.display())]
    NotEtcd { path: PathBuf, printed: String },
    #[error(
        "{} is etcd {found}, Muster needs {OLDEST} or newer: install a newer one (Debian: apt \
         install {package}) or set machine.etcd.binary", path.display()
    )]
    TooOld { path: PathBuf, found: Version, package: &'static str },
}

impl LocateError {
    /// Returns true if time can resolve it: the file is being written, or the machine is busy.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Run { source, .. } => source.kind() == io::ErrorKind::ExecutableFileBusy,
            Self::VersionTimeout { .. } => true,
            Self::Missing { .. }
            | Self::NotExecutable { .. }
            | Self::NotEtcd { .. }
            | Self::TooOld { .. } => false,
        }
    }

    /// Returns true if there is no program that can be run. Where there was one, it is being
    /// replaced.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::NotExecutable { .. } | Self::Run { .. } => true,
            Self::VersionTimeout { .. } | Self::NotEtcd { .. } | Self::TooOld { .. } => false,
        }
    }
}

/// Finds a program, at the given path or on `PATH`, and reads its version.
pub async fn locate(tool: Tool, given: Option<&Path>) -> Result<Binary, LocateError> {
    let path = match given {
        Some(path) if is_executable(path) => path.to_owned(),
        Some(path) => return Err(LocateError::NotExecutable { path: path.to_owned() }),
        None => search(tool, env::var_os("PATH").as_deref())?,
    };
    let version = read_version(tool, &path).await?;
    if version < OLDEST {
        return Err(LocateError::TooOld { path, found: version, package: tool.package() });
    }
    Ok(Binary { path, version })
}

fn search(tool: Tool, path: Option<&OsStr>) -> Result<PathBuf, LocateError> {
    let on_path = path.map(env::split_paths).into_iter().flatten();
    let places = on_path.chain(INSTALL_DIRECTORIES.iter().map(PathBuf::from));
    let mut found = places.map(|place| place.join(tool.program()));
    let missing = LocateError::Missing { program: tool.program(), package: tool.package() };
    found.find(|path| path.is_absolute() && is_executable(path)).ok_or(missing)
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Runs the program and parses its version: the first line is `etcd Version: 3.4.23` or
/// `etcdctl version: 3.4.23`.
async fn read_version(tool: Tool, path: &Path) -> Result<Version, LocateError> {
    let output = Command::new(path)
        .arg(tool.version_argument())
        .env_clear() // ETCD_… variables are settings
        .env("ETCDCTL_API", "3")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match timeout(VERSION_TIMEOUT, output).await {
        Ok(output) => {
            output.map_err(|source| LocateError::Run { path: path.to_owned(), source })?
        }
        Err(_) => return Err(LocateError::VersionTimeout { path: path.to_owned() }),
    };
    let printed = String::from_utf8_lossy(&output.stdout);
    let line = printed.lines().next().unwrap_or_default();
    let version = line
        .split_once(':')
        .filter(|(what, _)| what.to_ascii_lowercase() == format!("{} version", tool.program()))
        .and_then(|(_, version)| version.trim().parse().ok());
    version.ok_or_else(|| LocateError::NotEtcd {
        path: path.to_owned(),
        printed: line.chars().take(80).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn program(directory: &Path, script: &str) -> PathBuf {
        let path = directory.join("etcd");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn versions_are_three_numbers_whatever_follows() {
        let version = |text: &str| text.parse::<Version>().map(|v| v.to_string());
        assert_eq!(version("3.4.23").as_deref(), Ok("3.4.23"));
        assert_eq!(version("3.6.0-rc.1+git").as_deref(), Ok("3.6.0"));
        for wrong in ["", "3", "3.4", "x.y.z", "3.4.-1", "99999999999.1.1"] {
            assert!(version(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn the_installed_programs_are_found() {
        assert!(locate(Tool::Etcd, None).await.unwrap().version >= OLDEST);
        assert!(locate(Tool::Etcdctl, None).await.unwrap().version >= OLDEST);
    }

    #[test]
    fn a_missing_etcd_is_named_with_its_package() {
        let directory = tempfile::tempdir().unwrap();
        // Etcdutl: on a machine with etcd 3.4 it is missing from the usual directories as well.
        match search(Tool::Etcdutl, Some(directory.path().as_os_str())) {
            Ok(path) => assert!(path.is_absolute()),
            Err(error) => assert!(error.to_string().contains("apt install etcd-client"), "{error}"),
        }
    }

    #[tokio::test]
    async fn too_old_and_wrong_programs_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let locate = async |script: &str| {
            let path = program(directory.path(), script);
            locate(Tool::Etcd, Some(&path)).await.unwrap_err()
        };
        let error = locate("echo etcd Version: 3.3.25").await;
        assert!(matches!(error, LocateError::TooOld { .. }), "{error}");
        assert!(error.to_string().contains("is etcd 3.3.25, Muster needs 3.4.0"), "{error}");
        assert!(error.to_string().contains("etcd-server"), "{error}");
        let error = locate("echo hello").await;
        assert!(matches!(error, LocateError::NotEtcd { .. }), "{error}");
        let error = super::locate(Tool::Etcd, Some(Path::new("/nowhere/etcd"))).await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/etcd"), "{error}");
    }
}
