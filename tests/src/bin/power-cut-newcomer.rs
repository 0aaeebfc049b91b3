//! The other program whose power is cut: `power-cut-newcomer DIR` is a node in its first seconds. It
//! makes its state directory, its identity and its record of promises, then promises again and
//! again, saves its membership and remembers its peers, and says what it does. It is run under
//! strace.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use muster_discovery::birth::{Bond, Record};
use muster_discovery::candidates::remembered;
use muster_proto::ClusterId;
use muster_tests::newcomer::{CLUSTER, membership, peers};
use musterd::prepare;
use musterd::raft::store::{self, Owner, SLED};
use musterd::state_dir::StateDir;

/// Promises it makes, each with a new membership file.
const PROMISES: u64 = 12;

fn main() -> Result<()> {
    let dir =
        std::env::args().nth(1).map(PathBuf::from).context("usage: power-cut-newcomer DIR")?;
    let state = StateDir::open(&dir.join("var/state"))?;
    let (identity, promises) = prepare::identity(&state, false)?;
    say(&format!("is {}", identity.node_id()))?;
    // A node acts on the promises it finds, so they count as made.
    let found = promises.record.turn;
    say(&format!("doing {found}"))?;
    say(&format!("did {found}"))?;
    // As a member does: what the membership implies is there before it.
    let owner = Owner { node: identity.node_id(), cluster: ClusterId::from_bytes(CLUSTER) };
    store::make(&state.raft(), &owner, SLED)?;
    let first = found + 1;
    for turn in first..first + PROMISES {
        say(&format!("doing {turn}"))?;
        promises.store.write(&Record { turn, bond: Bond::Free })?;
        say(&format!("did {turn}"))?;
        say(&format!("saving {turn}"))?;
        membership(turn)?.save(&state.membership())?;
        say(&format!("saved {turn}"))?;
        say(&format!("remembering {turn}"))?;
        remembered::write(&state.peers(), &peers(turn))?;
        say(&format!("remembered {turn}"))?;
    }
    Ok(())
}

/// One line, one write: so that it stands at its place among the file operations.
fn say(line: &str) -> Result<()> {
    Ok(std::io::stdout().write_all(format!("{line}\n").as_bytes())?)
}
