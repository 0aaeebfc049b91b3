//! `tests/fuzz.sh` reaches every fuzz target, and every folder of the corpus has its target.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use muster_structure::prose::rust_files;
use muster_structure::{layers, workspace};

/// Start of a target in the source.
const CALL: &str = "target(\"";

#[test]
fn the_fuzz_script_builds_every_crate_with_targets() -> Result<()> {
    let script = fs::read_to_string(workspace().join("tests/fuzz.sh"))?;
    for package in layers::packages()?.values() {
        let files = rust_files(&package.folder.join("src"))?;
        let mut texts = files.iter().map(fs::read_to_string);
        if texts.any(|text| text.is_ok_and(|text| text.contains("use muster_fuzz::"))) {
            let part = format!("\"{} --", package.name);
            ensure!(script.contains(&part), "tests/fuzz.sh leaves out {}", package.name);
        }
    }
    Ok(())
}

#[test]
fn every_corpus_belongs_to_a_target_and_every_target_has_a_corpus() -> Result<()> {
    let mut targets = BTreeSet::new();
    for file in rust_files(&workspace())? {
        let text = fs::read_to_string(&file)?;
        if text.contains("use muster_fuzz::") {
            let calls = text.split(CALL).skip(1);
            targets.extend(calls.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
    }
    let mut folders = BTreeSet::new();
    for entry in fs::read_dir(workspace().join("tests/fuzz/corpus"))? {
        folders.insert(entry?.file_name().into_string().ok().context("a corpus's name")?);
    }
    ensure!(targets.len() > 30, "only {} targets were found", targets.len());
    ensure!(targets == folders, "targets {targets:?}, folders of the corpus {folders:?}");
    Ok(())
}
