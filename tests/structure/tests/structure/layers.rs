//! Crates are layers: what each may link, and which may name a library that belongs to one place.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use muster_structure::layers::{Package, linked, packages};
use muster_structure::workspace;

/// Crates without a runtime and without network.
const PURE: [&str; 6] = [
    "muster-types",
    "muster-config",
    "muster-messages",
    "muster-pki",
    "muster-files",
    "muster-state",
];

/// Crates that a pure crate must not link: runtimes, sockets, servers, and storage.
const RUNTIMES: [&str; 11] = [
    "tokio", "mio", "hyper", "h2", "axum", "tonic", "quinn", "tower", "openraft", "sled", "socket2",
];

/// Crates that `musterctl` must not link: the daemon and what only the daemon needs.
const DAEMON_ONLY: [&str; 13] = [
    "foca",
    "mdns-sd",
    "hickory-proto",
    "hickory-resolver",
    "hickory-server",
    "openraft",
    "sled",
    "muster-gossip",
    "muster-sources",
    "muster-formation",
    "muster-state",
    "muster-storage",
    "musterd",
];

/// Libraries that belong to one place, and the crates that may name them. Test crates may always.
const OWNED: [(&str, &[&str]); 7] = [
    ("openraft", &["musterd", "muster-storage"]),
    ("sled", &["muster-storage"]),
    ("foca", &["muster-gossip"]),
    ("mdns-sd", &["muster-sources"]),
    ("hickory-resolver", &["muster-sources"]),
    ("rcgen", &["muster-pki"]),
    ("clap", &["musterd", "musterctl"]),
];

/// Returns true for a crate that only tests use.
fn is_for_tests(package: &Package) -> bool {
    package.folder.starts_with(workspace().join("tests"))
}

fn forbidden(package: &str, words: &[&str]) -> Result<Vec<String>> {
    let linked = linked(package)?;
    ensure!(linked.contains(package), "cargo tree does not know {package}");
    Ok(words.iter().copied().filter(|name| linked.contains(*name)).map(str::to_owned).collect())
}

#[test]
fn pure_crates_link_no_runtime() -> Result<()> {
    for package in PURE {
        let found = forbidden(package, &RUNTIMES)?;
        ensure!(
            found.is_empty(),
            "{package} links {found:?}; `cargo tree -p {package} -e normal -i {}` shows why",
            found.join(", ")
        );
    }
    Ok(())
}

#[test]
fn the_command_line_links_nothing_of_the_daemon() -> Result<()> {
    let found = forbidden("musterctl", &DAEMON_ONLY)?;
    ensure!(found.is_empty(), "musterctl links {found:?}");
    Ok(())
}

#[test]
fn a_library_with_one_home_is_named_nowhere_else() -> Result<()> {
    let packages = packages()?;
    for (library, homes) in OWNED {
        let naming: BTreeSet<_> = packages
            .values()
            .filter(|package| !is_for_tests(package) && package.dependencies.contains(library))
            .map(|package| package.name.as_str())
            .collect();
        ensure!(
            naming.iter().all(|name| homes.contains(name)),
            "{library} belongs to {homes:?}, and is named by {naming:?}"
        );
        ensure!(!naming.is_empty(), "{library} is not used; remove it from this table");
    }
    Ok(())
}

#[test]
fn production_crates_use_no_test_crate() -> Result<()> {
    let packages = packages()?;
    let tests: Vec<_> = packages.values().filter(|one| is_for_tests(one)).collect();
    ensure!(tests.len() > 2, "only {} test crates were found", tests.len());
    for package in packages.values().filter(|one| !is_for_tests(one)) {
        let used = tests.iter().find(|test| package.dependencies.contains(&test.name));
        ensure!(used.is_none(), "{} depends on {used:?}", package.name);
    }
    Ok(())
}

/// The rules above would hold of an empty graph too.
#[test]
fn the_graph_holds_what_is_known_to_be_linked() -> Result<()> {
    let found = forbidden("musterd", &["tokio", "openraft", "sled", "foca", "muster-state"])?;
    ensure!(found.len() == 5, "musterd links only {found:?} of these");
    Ok(())
}
