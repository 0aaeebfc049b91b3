//! A store with damaged files, or on a full or read-only disk. It reports the fault and never
//! returns anything but what was acknowledged.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use muster_tests::store::Node;
use muster_tests::store::engines::MUSTER;
use muster_tests::store::raft::single_voter;
use muster_tests::store::script::{OPS_PER_PROCESS, StoreContents, script};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Makes a directory with a store after one script, and returns its contents.
async fn store(seed: u64) -> Result<(tempfile::TempDir, StoreContents)> {
    let dir = tempfile::tempdir()?;
    let mut node = Node::open(dir.path(), MUSTER)?;
    let mut contents = StoreContents::default();
    for op in script(seed, OPS_PER_PROCESS) {
        node.perform(&op, &contents).await?;
        contents.perform(&op);
    }
    Ok((dir, contents))
}

async fn read(dir: &Path) -> Result<StoreContents> {
    Node::open(dir, MUSTER)?.read().await
}

/// Returns true if the log is unchanged, and so is the state, or it is that of the snapshot before,
/// from which the log continues.
fn is_equal_or_earlier_snapshot(contents: &StoreContents, found: &StoreContents) -> bool {
    let reach = |found: &StoreContents| found.snapshot >= found.purged.map(|(index, _)| index);
    (contents.vote, contents.purged, contents.committed, &contents.log)
        == (found.vote, found.purged, found.committed, &found.log)
        && found.history.iter().all(|(index, term)| contents.history.get(index) == Some(term))
        && reach(found)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status()?;
    ensure!(status.success(), "cp failed");
    Ok(())
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if fs::metadata(&path)?.len() > 0 {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Damages one copy after the other. Each must be refused, or have exactly the old contents.
async fn check_damaged_copies(
    trials: u64,
    damage: impl Fn(&Path, &mut StdRng) -> Result<String>,
) -> Result<(usize, usize)> {
    let (dir, contents) = store(1).await?;
    let (mut refused, mut unaffected) = (0, 0);
    for seed in 0..trials {
        let mut rng = StdRng::seed_from_u64(seed);
        let copied = tempfile::tempdir()?;
        copy(dir.path(), copied.path())?;
        let files = files(&copied.path().join("raft"))?;
        let file = &files[rng.random_range(0..files.len())];
        let what = damage(file, &mut rng)?;
        match read(copied.path()).await {
            Ok(found) => {
                ensure!(
                    is_equal_or_earlier_snapshot(&contents, &found),
                    "{what}: served {found:?}, not {contents:?}"
                );
                unaffected += 1;
            }
            Err(error) => {
                let text = format!("{error:#}");
                let named = text.contains(&copied.path().join("raft").display().to_string());
                ensure!(named, "{what}: the error does not name the place: {text}");
                refused += 1;
            }
        }
    }
    Ok((refused, unaffected))
}

#[tokio::test]
async fn flipped_bits_are_refused_or_do_not_matter() -> Result<()> {
    let (refused, unaffected) = check_damaged_copies(150, |path, rng| {
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        let at = rng.random_range(0..file.metadata()?.len());
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 << rng.random_range(0..8);
        file.write_all_at(&byte, at)?;
        Ok(format!("bit flipped in byte {at} of {}", path.display()))
    })
    .await?;
    ensure!(refused > 30, "only {refused} were refused, {unaffected} were not affected");
    Ok(())
}

#[tokio::test]
async fn files_that_were_cut_off_are_refused_or_do_not_matter() -> Result<()> {
    let (refused, unaffected) = check_damaged_copies(80, |path, rng| {
        let file = fs::OpenOptions::new().write(true).open(path)?;
        let length = rng.random_range(0..file.metadata()?.len());
        file.set_len(length)?;
        Ok(format!("{} cut to {length} bytes", path.display()))
    })
    .await?;
    ensure!(refused > 30, "only {refused} were refused, {unaffected} were not affected");
    Ok(())
}

#[tokio::test]
async fn a_missing_file_is_refused_or_does_not_matter() -> Result<()> {
    let (refused, unaffected) = check_damaged_copies(40, |path, _| {
        fs::remove_file(path)?;
        Ok(format!("{} removed", path.display()))
    })
    .await?;
    ensure!(refused > 8, "only {refused} were refused, {unaffected} were not affected");
    Ok(())
}

/// Runs the victim from operation `from` on a separate file system, made by `prepare`. Afterwards
/// its files are in `out`.
fn victim_on(prepare: &str, from: usize, out: &Path) -> Result<Output> {
    let mount = tempfile::tempdir()?;
    let shell = format!(
        "set -e; {prepare}; set +e; \"$VICTIM\" \"$DISK\" {} 7 {from} {OPS_PER_PROCESS}; code=$?; \
         cp -a \"$DISK/.\" \"$OUT\"; exit $code",
        MUSTER.name
    );
    Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", &shell])
        .env("VICTIM", env!("CARGO_BIN_EXE_power-cut-victim"))
        .env("DISK", mount.path())
        .env("OUT", out)
        .output()
        .context("run unshare (Debian package util-linux)")
}

#[tokio::test]
async fn a_full_disk_stops_the_node_and_loses_nothing() -> Result<()> {
    let mut later = 0;
    for kib in [300, 560, 600, 640] {
        let out = tempfile::tempdir()?;
        let prepare = format!("mount -t tmpfs -o size={kib}k,mode=700 disk \"$DISK\"");
        let output = victim_on(&prepare, 0, out.path())?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{kib} KiB were enough:\n{stdout}");
        ensure!(stderr.contains("No space left on device"), "{kib} KiB: {stderr}");
        let number = |prefix| {
            let numbers = stdout.lines().filter_map(|line| line.strip_prefix(prefix)?.parse().ok());
            numbers.max().map_or(0, |n: usize| n + 1)
        };
        let (asked, acknowledged) = (number("doing "), number("did "));
        let found = match read(out.path()).await {
            Ok(found) => found,
            Err(error) if acknowledged == 0 => {
                // It was never created, so nothing was acknowledged.
                ensure!(format!("{error:#}").contains("raft"), "{error:#}");
                continue;
            }
            Err(error) => return Err(error.context(format!("{kib} KiB, with free space again"))),
        };
        later += usize::from(acknowledged > 10);
        let ops = script(7, asked);
        let possible = (acknowledged..=asked).map(|n| {
            let mut contents = StoreContents::default();
            ops[..n].iter().for_each(|op| contents.perform(op));
            contents
        });
        // The committed index waits for the next write, which failed.
        let equal = |contents: &StoreContents| {
            (contents.vote, contents.purged, &contents.log)
                == (found.vote, found.purged, &found.log)
        };
        ensure!(
            possible.into_iter().any(|contents| equal(&contents)),
            "{kib} KiB: holds {found:?}"
        );
    }
    ensure!(later > 0, "the disk was full too early to show anything");
    Ok(())
}

#[tokio::test]
async fn a_store_that_is_opened_on_a_full_disk_is_not_taken_for_damaged() -> Result<()> {
    const BEFORE: usize = 60;
    let out = tempfile::tempdir()?;
    let prepare = format!(
        "mount -t tmpfs -o size=16m,mode=700 disk \"$DISK\"; \
         \"$VICTIM\" \"$DISK\" {} 7 0 {BEFORE} >/dev/null; \
         cat /dev/zero >\"$DISK/ballast\" 2>/dev/null || true",
        MUSTER.name
    );
    let output = victim_on(&prepare, BEFORE, out.path())?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "there was room: {stderr}");
    ensure!(stderr.contains("No space left on device"), "{stderr}");
    ensure!(!stderr.contains("corrupted") && !stderr.contains("re-initialised"), "{stderr}");
    let mut contents = StoreContents::default();
    for op in &script(7, BEFORE) {
        contents.perform(op);
    }
    let found = read(out.path()).await.context("with free space again")?;
    ensure!(is_equal_or_earlier_snapshot(&contents, &found), "holds {found:?}, not {contents:?}");
    Ok(())
}

#[tokio::test]
async fn a_sync_that_fails_once_is_never_repeated_and_nothing_is_acknowledged() -> Result<()> {
    let mut stopped = 0;
    for at in [8, 15, 30] {
        let dir = tempfile::tempdir()?;
        // The drive reports one error. A second attempt would succeed.
        let inject = format!("inject=fdatasync:error=EIO:when={at}");
        let output = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject])
            .arg(env!("CARGO_BIN_EXE_power-cut-victim"))
            .arg(dir.path())
            .args([MUSTER.name, "7", "0", &OPS_PER_PROCESS.to_string()])
            .output()
            .context("run strace (Debian package strace)")?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "sync {at} failed unnoticed:\n{stdout}");
        ensure!(stderr.contains("Input/output error"), "sync {at}: {stderr}");
        let last = stdout.lines().last().unwrap_or_default();
        ensure!(last.starts_with("doing "), "sync {at}: acknowledged anyway: {last}");
        stopped += stdout.lines().filter(|line| line.starts_with("did ")).count();
    }
    ensure!(stopped > 20, "only {stopped} operations came before");
    Ok(())
}

#[tokio::test]
async fn a_read_only_disk_is_refused_and_named() -> Result<()> {
    let out = tempfile::tempdir()?;
    let prepare = "mount -t tmpfs -o ro,mode=700 disk \"$DISK\"";
    let output = victim_on(prepare, 0, out.path())?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "a read-only disk was taken");
    ensure!(stderr.contains("raft") && stderr.contains("Read-only file system"), "{stderr}");
    Ok(())
}

/// openraft would let it continue to lead. But it may have lost entries that others have, and would
/// give their indexes to others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_leader_does_not_continue_to_lead_in_its_term() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut terms = BTreeSet::new();
    for _ in 0..3 {
        let raft = single_voter(Node::open(dir.path(), MUSTER)?).await?;
        let term = raft.metrics().borrow().vote.leader_id.term;
        ensure!(terms.insert(term), "it led in term {term} before");
        raft.shutdown().await?;
    }
    Ok(())
}
