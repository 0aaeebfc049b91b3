//! Modules of a crate do not import each other in a cycle.

use anyhow::{Result, ensure};
use muster_structure::{cycles, layers, shown};

#[test]
fn no_modules_import_each_other_in_a_cycle() -> Result<()> {
    let mut found = Vec::new();
    let mut crates = 0;
    for package in layers::packages()?.values() {
        for root in &package.roots {
            crates += 1;
            let cycles = cycles::find(root)?;
            found.extend(cycles.iter().map(|cycle| format!("{}: {cycle}", shown(root))));
        }
    }
    ensure!(crates > 15, "only {crates} crates were found");
    ensure!(found.is_empty(), "{} import cycles:\n  {}", found.len(), found.join("\n  "));
    Ok(())
}
