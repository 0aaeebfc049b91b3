//! The group's timers and bounds, and why.

use std::time::Duration;

use muster_types::ClusterId;
use openraft::{Config, SnapshotPolicy};

use super::quorum::Timing;

/// The leader is heard at least every one and a half of these: openraft looks at its clock no more
/// often. Also what it gives one append to be answered, so it must leave room for a slow disk.
const HEARTBEAT: Duration = Duration::from_millis(120);

/// How long a follower waits beyond the lease before it stands for election: at the least …
const ELECTION_MIN: Duration = Duration::from_millis(250);

/// … and at the most. The lease, for which voters refuse others after a heartbeat, is as long. So a
/// killed leader is replaced after lease, wait and one look at the clock, counted from its last
/// heartbeat: 0.7 to 1.1 s, most often below one second; a disk or a machine that stalls for three
/// heartbeats costs no election.
const ELECTION_MAX: Duration = Duration::from_millis(450);

/// A snapshot is made every so many entries, unless a test wants more of them.
pub const SNAPSHOT_EVERY: u64 = 2000;

/// Entries kept behind a snapshot, so that a member that was away briefly needs no snapshot.
const KEEP_BEHIND: u64 = 500;

/// What the quorum watch needs to know.
pub const QUORUM: Timing = Timing { lease: ELECTION_MAX };

/// openraft's configuration.
pub fn config(cluster: &ClusterId, snapshot_every: u64) -> Config {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Config {
        cluster_name: cluster.short(),
        heartbeat_interval: ms(HEARTBEAT),
        election_timeout_min: ms(ELECTION_MIN),
        election_timeout_max: ms(ELECTION_MAX),
        install_snapshot_timeout: 30_000,
        // Fewer where they are long: a read of the log ends after 1 MiB, and a message holds 4 MiB.
        max_payload_entries: 128,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every),
        max_in_snapshot_log_to_keep: KEEP_BEHIND.min(snapshot_every / 2),
        ..Config::default()
    }
}
