//! The kept inputs of a target: files in `tests/fuzz/corpus`, in the order of their names.

use std::env;
use std::fs;
use std::path::PathBuf;

use crate::Target;

/// Returns the directory of this target's inputs.
pub(crate) fn directory(target: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).join(target)
}

/// Variable with a directory for the targets' seeds, used when a corpus is made or renewed.
const SEEDS: &str = "MUSTER_FUZZ_SEEDS";

/// Writes the target's seeds if that is requested. Returns their directory.
pub(crate) fn write_seeds(target: &Target) -> Option<PathBuf> {
    let directory = PathBuf::from(env::var_os(SEEDS)?).join(target.name);
    fs::create_dir_all(&directory).expect("a directory for the seeds can be made");
    for (number, seed) in target.seeds.iter().enumerate() {
        fs::write(directory.join(format!("seed-{number}")), seed).expect("a seed can be written");
    }
    Some(directory)
}

/// Returns every kept input, with its file name.
#[cfg_attr(fuzzing, expect(dead_code, reason = "libFuzzer reads the directory by itself"))]
pub(crate) fn read(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = directory(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| {
        panic!("list the kept inputs of {target} in {}: {error}", directory.display())
    });
    let mut files: Vec<_> =
        entries.map(|entry| entry.expect("the corpus directory can be listed").path()).collect();
    files.sort();
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes)
    };
    files.into_iter().map(read).collect()
}
