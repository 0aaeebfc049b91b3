//! Damaged, torn or missing files of a node, and files of a newer version. It does not start, names the file and what to do, and
//! serves nothing. The others continue. The documented steps (docs/guide/operations.md, "A node's
//! files are damaged") bring the machine back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use data_encoding::HEXLOWER;
use muster_tests::ctl::output_of;
use muster_tests::documented_steps::commands_under;
use muster_tests::{Cluster, Plan, scenario, until};
use ring::digest::{SHA256, digest};

/// Timeout on a loaded machine; normally it takes a second.
const TIMEOUT: Duration = Duration::from_secs(30);

type DamageFn = fn(&Path) -> Result<()>;

/// One kind of damage, and the node's expected error and exit code.
struct Damage {
    what: &'static str,
    apply: DamageFn,
    code: i32,
    /// Parts of the error: the file, and what to do.
    expected: &'static [&'static str],
}

fn flip_bit(path: &Path, at: impl Fn(usize) -> usize) -> Result<()> {
    let mut bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let at = at(bytes.len());
    bytes[at] ^= 0x01;
    Ok(fs::write(path, bytes)?)
}

fn truncate_half(path: &Path) -> Result<()> {
    let file = fs::OpenOptions::new().write(true).open(path)?;
    Ok(file.set_len(file.metadata()?.len() / 2)?)
}

/// Returns the last position in the store's file that is not zero.
fn newest_byte(path: &Path) -> Result<usize> {
    let bytes = fs::read(path)?;
    bytes.iter().rposition(|byte| *byte != 0).context("an empty store")
}

/// Gives a file that ends with the SHA-256 of all before it another format number: its eighth byte.
fn make_newer(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let content = bytes.len().checked_sub(32).context("shorter than a checksum")?;
    bytes[7] += 1;
    let sum = digest(&SHA256, &bytes[..content]);
    bytes[content..].copy_from_slice(sum.as_ref());
    Ok(fs::write(path, bytes)?)
}

/// Gives the membership file another format number. Its first field is the SHA-256 of the object
/// without that field.
fn make_membership_newer(path: &Path) -> Result<()> {
    let text = fs::read_to_string(path)?;
    let fields = text.split_once(',').context("a field after the checksum")?.1;
    ensure!(fields.contains(r#""format":1"#), "{text}");
    let object = format!("{{{}", fields.replace(r#""format":1"#, r#""format":2"#));
    let sum = HEXLOWER.encode(digest(&SHA256, object.as_bytes()).as_ref());
    Ok(fs::write(path, format!(r#"{{"sha256":"{sum}",{}"#, &object[1..]))?)
}

/// Advice for files of a newer version.
const START_NEWER: &str = "start the version that wrote it";

/// The daemon's advice for a node that must begin again.
const REINITIALISE: &str = musterd::fatal::REINITIALISE;

const DAMAGES: &[Damage] = &[
    Damage {
        what: "a newer state directory",
        apply: |state| Ok(fs::write(state.join("format"), "2\n")?),
        code: 78,
        expected: &["newer Muster", START_NEWER],
    },
    Damage {
        what: "newer promises",
        apply: |state| make_newer(&state.join("birth")),
        code: 78,
        expected: &["birth", "newer Muster", START_NEWER],
    },
    Damage {
        what: "a newer membership",
        apply: |state| make_membership_newer(&state.join("membership.json")),
        code: 78,
        expected: &["membership.json", "newer Muster", START_NEWER],
    },
    Damage {
        what: "a newer store",
        apply: |state| Ok(fs::write(state.join("raft/store.json"), r#"{"format": 2}"#)?),
        code: 78,
        expected: &["raft/store.json", "newer Muster", START_NEWER],
    },
    Damage {
        what: "a bit of the key",
        apply: |state| flip_bit(&state.join("identity.key"), |length| length / 2),
        code: 78,
        expected: &["belongs to another node", REINITIALISE],
    },
    Damage {
        what: "an empty key",
        apply: |state| Ok(fs::write(state.join("identity.key"), "")?),
        code: 78,
        expected: &["identity.key", REINITIALISE],
    },
    Damage {
        what: "no key",
        apply: |state| Ok(fs::remove_file(state.join("identity.key"))?),
        code: 78,
        expected: &["identity.key", REINITIALISE],
    },
    Damage {
        what: "a bit of the promises",
        apply: |state| flip_bit(&state.join("birth"), |length| length / 2),
        code: 78,
        expected: &["birth", "corrupt", REINITIALISE],
    },
    Damage {
        what: "half the promises",
        apply: |state| truncate_half(&state.join("birth")),
        code: 78,
        expected: &["birth", "corrupt", REINITIALISE],
    },
    Damage {
        what: "no promises",
        apply: |state| Ok(fs::remove_file(state.join("birth"))?),
        code: 78,
        expected: &["birth record", "is missing", REINITIALISE],
    },
    Damage {
        what: "half the membership",
        apply: |state| truncate_half(&state.join("membership.json")),
        code: 78,
        expected: &["membership.json", REINITIALISE],
    },
    Damage {
        what: "a bit of the membership",
        apply: |state| flip_bit(&state.join("membership.json"), |length| length / 2),
        code: 78,
        expected: &["membership.json", REINITIALISE],
    },
    Damage {
        what: "a garbled header of the store",
        apply: |state| Ok(fs::write(state.join("raft/store.json"), "{")?),
        code: 78,
        expected: &["raft/store.json", REINITIALISE],
    },
    Damage {
        what: "a bit of the store",
        apply: |state| {
            let file = state.join("raft/data/db");
            let at = newest_byte(&file)?;
            flip_bit(&file, |_| at)
        },
        code: 74,
        expected: &["raft/data", REINITIALISE],
    },
    Damage {
        what: "half the store",
        apply: |state| {
            let file = state.join("raft/data/db");
            let at = newest_byte(&file)? / 2;
            Ok(fs::OpenOptions::new().write(true).open(&file)?.set_len(u64::try_from(at)?)?)
        },
        code: 74,
        expected: &["raft/data", REINITIALISE],
    },
    Damage {
        what: "the mark of the store",
        apply: |state| truncate_half(&state.join("raft/mark")),
        code: 74,
        expected: &["raft/mark", REINITIALISE],
    },
    Damage {
        what: "no data in the store",
        apply: |state| Ok(fs::remove_dir_all(state.join("raft/data"))?),
        code: 78,
        expected: &["raft/data", REINITIALISE],
    },
    Damage {
        what: "no store at all",
        apply: |state| Ok(fs::remove_dir_all(state.join("raft"))?),
        code: 78,
        expected: &["raft", REINITIALISE],
    },
];

fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    let mut command = std::process::Command::new("cp");
    output_of(command.arg("-a").arg(from).arg(to))?.success().map(|_| ())
}

/// Exit status of a node, if it exited, its log, and the calls that it answered before.
struct ExitReport {
    status: Result<ExitStatus>,
    log: String,
    served: Vec<String>,
}

/// Starts `cp-2`, which must exit by itself, and calls it with reads and writes until then.
fn run_until_exit(cluster: &mut Cluster) -> Result<ExitReport> {
    let log = cluster.node("cp-2").host.dir().join("musterd.log");
    let before = fs::metadata(&log)?.len();
    cluster.start("cp-2")?;
    let mut process = cluster.node_mut("cp-2").process.take().context("a process")?;
    let has_ended = AtomicBool::new(false);
    let (status, served) = std::thread::scope(|scope| {
        let (cluster, has_ended) = (&*cluster, &has_ended);
        let calls = [READ, WRITE].map(|call| {
            scope.spawn(move || -> Result<Vec<String>> {
                let mut served = Vec::new();
                while !has_ended.load(Ordering::Relaxed) {
                    let output = cluster.ctl_at("cp-2", call)?;
                    if output.code == Some(0) {
                        served.push(format!("{call:?}: {}", output.out));
                    }
                    // Leaves processor time to the node.
                    std::thread::sleep(Duration::from_millis(50));
                }
                Ok(served)
            })
        });
        let status = process.wait_exit(TIMEOUT);
        has_ended.store(true, Ordering::Relaxed);
        let answers = calls.map(|call| call.join().expect("the thread only runs musterctl"));
        (status, answers.into_iter().collect::<Result<Vec<_>>>())
    });
    let output = fs::read(&log)?;
    let log = String::from_utf8_lossy(&output[usize::try_from(before)?..]).into_owned();
    Ok(ExitReport { status, log, served: served?.concat() })
}

/// Returns the line with the reason of the exit.
fn exit_message(log: &str) -> &str {
    let is_end = |line: &&str| line.starts_with("musterd: ") || line.contains("musterd exits");
    log.lines().rev().find(is_end).unwrap_or_default()
}

/// Calls that a node without a healthy state must not answer.
const READ: &[&str] = &["token", "list", "-o", "json"];
const WRITE: &[&str] = &["token", "create", "--role", "worker", "--description", "damaged"];

fn write(cluster: &Cluster, description: &str) -> Result<()> {
    let args = ["token", "create", "--role", "worker", "--description", description];
    cluster.ctl(&args)?.success().map(|_| ())
}

/// Returns all problems in the node's reaction to one kind of damage.
fn check_damage(
    cluster: &mut Cluster,
    damage: &Damage,
    state: &Path,
    intact: &Path,
) -> Result<Vec<String>> {
    let Damage { what, apply, code, expected } = damage;
    copy(intact, state)?;
    apply(state)?;
    let mut problems = Vec::new();
    let ExitReport { status, log, served } = run_until_exit(cluster)?;
    if let Some(first) = served.first() {
        problems.push(format!("{what}: it answered {} calls, first {first}", served.len()));
    }
    match status.map(|status| status.code()) {
        Ok(found) => {
            let sentence = exit_message(&log);
            if found != Some(*code) {
                problems.push(format!("{what}: it ended with {found:?}, not {code}: {log}"));
            }
            if expected.iter().any(|part| !sentence.contains(part)) {
                problems.push(format!("{what}: not all of {expected:?} are in {sentence:?}"));
            }
            if sentence.contains(REINITIALISE) && !expected.contains(&REINITIALISE) {
                problems.push(format!("{what}: advice to give the node up: {sentence:?}"));
            }
        }
        Err(error) => {
            problems.push(format!("{what}: {error:#}"));
            cluster.node("cp-2").host.kill_all()?;
        }
    }
    write(cluster, what).with_context(|| format!("{what}: the others do not continue"))?;
    Ok(problems)
}

#[test]
fn a_node_whose_files_are_damaged_serves_nothing_and_says_what_to_do() {
    scenario("rotten-files", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3))?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        write(&cluster, "before")?;
        // Some certificates and peers must be on disk.
        cluster.kill("cp-2")?;
        let dir = cluster.node("cp-2").host.dir().to_owned();
        let (state, intact): (PathBuf, _) = (dir.join("state"), dir.join("whole"));
        copy(&state, &intact)?;
        let mut wrong = Vec::new();
        for damage in DAMAGES {
            wrong.extend(check_damage(&mut cluster, damage, &state, &intact)?);
        }
        ensure!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));

        // The last damage stays. The documented steps follow.
        for step in commands_under("A node's files are damaged.")? {
            cluster.run_documented_step(&step, "cp-2").context(step)?;
        }
        ensure!(
            dir.join("state.damaged").exists(),
            "the documented steps do not keep the old state"
        );
        cluster.until_members("cp-2 to be a member again", |members| {
            let list = members["members"].as_array().cloned().unwrap_or_default();
            list.iter().any(|m| m["name"] == "cp-2" && m["state"] == "alive")
        })?;
        cluster.until_healthy()?;
        let tokens = cluster.ctl_at("cp-2", &["token", "list", "-o", "json"])?.success()?;
        for damage in DAMAGES {
            ensure!(tokens.contains(damage.what), "{} was acknowledged and is lost", damage.what);
        }
        Ok(())
    });
}

#[test]
fn remembered_peers_that_are_garbled_are_set_aside() {
    scenario("rotten-peers", |lab| {
        let mut cluster = Cluster::plan(lab, &Plan::of(3))?;
        cluster.start_all()?;
        cluster.until_healthy()?;
        let peers = cluster.node("cp-2").host.dir().join("state/peers.json");
        until("peers to be remembered", TIMEOUT, || {
            if peers.exists() { Ok(()) } else { Err("no file yet") }
        })?;
        cluster.kill("cp-2")?;
        flip_bit(&peers, |_| 0)?;
        cluster.start("cp-2")?;
        cluster.until_healthy()?;
        ensure!(peers.with_extension("json.unreadable").exists(), "it was not set aside");
        Ok(())
    });
}
