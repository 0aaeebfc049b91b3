//! The search for every secret of a run, and the files in which each of them may be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use muster_tests::lab::Lab;
use muster_tests::secrets::{Match, Search, files, if_exists, is_readable_by_others};

use super::{PASTED_TOKEN, Run};

/// Searches everything that the run recorded, and every file of the lab.
pub(super) fn search_everything(lab: &Lab, run: &Run) -> Result<()> {
    let search = Search::new(&run.secrets)?;
    let mut wrong = BTreeSet::new();
    for (place, text) in &run.seen {
        // The pasted token is visible as an argument.
        let typed =
            |found: &Match| place.starts_with("/proc/") && found.name.contains(PASTED_TOKEN);
        for found in search.scan(text).into_iter().filter(|found| !typed(found)) {
            wrong.insert(format!("{place} shows {} ({})", found.name, found.encoding));
        }
    }
    let mut places_by_secret: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut logs = BTreeSet::new();
    for file in files(lab.dir())?.iter().filter(|file| !file.ends_with("frames")) {
        let Some(text) = if_exists(fs::read(file))? else { continue };
        let path = file.strip_prefix(lab.dir())?.display().to_string();
        let is_log = file.extension().is_some_and(|extension| extension == "log");
        logs.extend(is_log.then(|| path.clone()));
        let open = is_readable_by_others(file)?;
        ensure!(!(open && path.contains("/state/")), "{path} can be read by others");
        for found in search.scan(&text) {
            if is_log || open || !is_proper_place(&found.name, &path) {
                wrong.insert(format!("{path} holds {} ({})", found.name, found.encoding));
            }
            places_by_secret.entry(found.name).or_default().insert(path.clone());
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
    for log in ["cp-1/musterd.log", "cp-3/musterd.log", "worker-2/musterd.log"] {
        ensure!(logs.contains(log), "{log} was not searched: {logs:?}");
    }
    ensure!(logs.iter().any(|log| log.ends_with("etcd.log")), "no log of etcd: {logs:?}");
    let trace = fs::read_to_string(lab.dir().join("cp-3/musterd.log"))?;
    ensure!(trace.contains("TRACE"), "cp-3 did not log everything");
    // The search must find every secret that is stored somewhere.
    for secret in &run.secrets {
        let missed = !places_by_secret.contains_key(&secret.name)
            && !secret.name.starts_with("the verifier of");
        let shown_only = ["a revoked", "a stranger's", "a destroyed"];
        let shown_only = shown_only.iter().any(|whose| secret.name.contains(whose));
        ensure!(!missed || shown_only, "{} was found nowhere", secret.name);
    }
    Ok(())
}

/// Returns true if the secret may be in this file. Everything else is a leak, also in a private
/// file.
fn is_proper_place(secret: &str, path: &str) -> bool {
    let is_voter = path.starts_with("cp-") || path.starts_with("operator/alone/");
    let raft = is_voter && path.contains("/state/raft/");
    if secret.starts_with("the secret of") {
        // Configurations of machines, and an operator's context before its first contact.
        let given = Path::new(path);
        return path.starts_with("operator/")
            && (given.extension().is_some_and(|kind| kind == "yaml") || given.ends_with("token"));
    }
    if secret.starts_with("the verifier of") || secret.ends_with("authority's key") {
        return raft;
    }
    if secret == "the service-account key" {
        return raft;
    }
    let owner = secret.strip_prefix("the identity of ");
    let etcd = secret.strip_prefix("etcd's ").and_then(|rest| rest.split_once(" on "));
    let operator = secret.strip_suffix(" of the operator");
    owner.is_some_and(|name| path == format!("{name}/state/identity.key"))
        || etcd.is_some_and(|(file, name)| path == format!("{name}/state/etcd/tls/{file}"))
        || operator.is_some_and(|file| {
            // `init` writes the key to the directory and to the context of that name.
            path.starts_with("operator/")
                && Path::new(path).file_name() == Path::new(file).file_name()
        })
}
