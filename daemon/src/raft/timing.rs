//! The group's timers and bounds, and why.

use std::time::Duration;

use muster_proto::ClusterId;
use openraft::{Config, SnapshotPolicy};

use super::quorum::Timing;

/// The leader is heard this often. Also what openraft gives one append to be answered, so it must
/// leave room for a slow disk.
const HEARTBEAT: Duration = Duration::from_millis(150);

/// A follower stands for election after this long without a leader, at the least …
const ELECTION_MIN: Duration = Duration::from_millis(600);

/// … and at the most; voters also hold their lease for this long. A killed leader is replaced within
/// about this, well below the 2 s of the failure table.
const ELECTION_MAX: Duration = Duration::from_secs(1);

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
        // At most 16 KiB each (the store's bound): an append stays below the 4 MiB of a message.
        max_payload_entries: 128,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every),
        max_in_snapshot_log_to_keep: KEEP_BEHIND.min(snapshot_every / 2),
        ..Config::default()
    }
}
