//! A log file that rotates at a size limit.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::logs::LogConfig;
use muster_files::PRIVATE_MODE;

/// Appends to a file and rotates it when it is full. Together the files hold at most
/// `max_bytes * (keep + 1)` bytes plus one chunk. Losing the tail in a power cut is accepted.
#[derive(Debug)]
pub struct RotatingFile {
    config: LogConfig,
    file: File,
    size: u64,
}

impl RotatingFile {
    /// Opens the current file for appending. Creates it, readable by the owner only, if missing.
    pub fn open(config: LogConfig) -> io::Result<Self> {
        let file =
            OpenOptions::new().append(true).create(true).mode(PRIVATE_MODE).open(&config.path)?;
        let size = file.metadata()?.len();
        Ok(Self { config, file, size })
    }

    /// Appends a chunk; rotates at the end of a line once the file is full.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let full = self.size + piece.len() as u64 >= self.config.max_bytes;
        let cut = match piece.iter().rposition(|byte| *byte == b'\n') {
            Some(end) if full => end + 1,
            _ => piece.len(),
        };
        self.append(&piece[..cut])?;
        if full {
            self.rotate()?;
            self.append(&piece[cut..])?;
        }
        Ok(())
    }

    fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all(piece)?;
        self.size += piece.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for older in (1..self.config.keep).rev() {
            match fs::rename(self.numbered(older), self.numbered(older + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        if self.config.keep == 0 {
            fs::remove_file(&self.config.path)?;
        } else {
            fs::rename(&self.config.path, self.numbered(1))?;
        }
        *self = Self::open(self.config.clone())?;
        Ok(())
    }

    fn numbered(&self, number: u8) -> PathBuf {
        let mut path = OsString::from(&self.config.path);
        path.push(format!(".{number}"));
        path.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_set_aside_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let config = LogConfig { path: directory.path().join("log"), max_bytes: 10, keep: 2 };
        let mut log = RotatingFile::open(config.clone()).unwrap();
        for piece in ["0\n00000000", "\n", "1111\n", "2222\nre", "st\n33\n", "444444444\n", "5"] {
            log.write(piece.as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(read("log"), "5");
        assert_eq!(read("log.1"), "444444444\n");
        assert_eq!(read("log.2"), "2222\nrest\n33\n");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
        drop(log);
        RotatingFile::open(config).unwrap().write(b"6").unwrap();
        assert_eq!(read("log"), "56");
    }
}
