//! Last line of a node's log. Reads only the end of the file: a log can be large.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Number of bytes to read from the end of a log, more than any line that is worth showing.
const TAIL: u64 = 64 << 10;

/// Number of characters of a line to show.
const MAX_SHOWN: usize = 400;

/// Returns the start of the last line that is not blank. `None` if there is none or if the log cannot
/// be read.
pub(crate) fn last_log_line(path: &Path) -> Option<String> {
    let bytes = read_tail(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rfind(|line| !line.trim().is_empty())?;
    Some(line.chars().take(MAX_SHOWN).collect())
}

fn read_tail(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_last_line_is_the_last_that_is_not_blank() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(last_log_line(log.path()), None);
        log.write_all(b"one\ntwo \xff\n\n  \n").unwrap();
        assert_eq!(last_log_line(log.path()).as_deref(), Some("two \u{fffd}"));
        log.write_all("é".repeat(1000).as_bytes()).unwrap();
        assert_eq!(last_log_line(log.path()), Some("é".repeat(MAX_SHOWN)));
        assert_eq!(last_log_line(Path::new("/nowhere/musterd.log")), None);
    }

    /// Regression: the whole log was read into memory, to show one line.
    #[test]
    fn a_log_larger_than_memory_has_a_last_line_too() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        log.as_file().set_len(1 << 40).unwrap();
        log.as_file_mut().seek(SeekFrom::End(0)).unwrap();
        log.write_all(b"\nno etcd on the PATH\n").unwrap();
        assert_eq!(last_log_line(log.path()).as_deref(), Some("no etcd on the PATH"));
    }
}
