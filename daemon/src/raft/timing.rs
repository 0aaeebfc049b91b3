//! Timers and bounds of the Raft group, with their reasons.

use std::time::Duration;

use muster_types::ClusterId;
use openraft::{Config, SnapshotPolicy};

use super::quorum::QuorumTimers;

/// Heartbeat interval. openraft checks its clock once per interval, so up to one and a half
/// intervals pass between heartbeats. Also the timeout of one append, so it must allow for a slow
/// disk.
const HEARTBEAT: Duration = Duration::from_millis(120);

/// The minimum time that a follower waits after the lease before it starts an election.
const ELECTION_MIN: Duration = Duration::from_millis(250);

/// The maximum of that wait, and the length of the lease: the time for which voters refuse other
/// candidates after a heartbeat. A killed leader is therefore replaced after lease, wait and one
/// clock check, counted from its last heartbeat: 0.7 to 1.1 s, usually below one second. A disk or
/// a machine that stalls for three heartbeats causes no election.
const ELECTION_MAX: Duration = Duration::from_millis(450);

/// Log entries between two snapshots, unless a test overrides it.
pub const SNAPSHOT_EVERY: u64 = 2000;

/// Entries kept before a snapshot, so that a member that was away briefly needs no snapshot.
const KEPT_ENTRIES: u64 = 500;

/// Timers of the quorum watch.
pub(super) const QUORUM_TIMERS: QuorumTimers = QuorumTimers { lease: ELECTION_MAX };

/// openraft's configuration.
pub(super) fn config(cluster: &ClusterId, snapshot_every: u64) -> Config {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Config {
        cluster_name: cluster.short(),
        heartbeat_interval: ms(HEARTBEAT),
        election_timeout_min: ms(ELECTION_MIN),
        election_timeout_max: ms(ELECTION_MAX),
        install_snapshot_timeout: 30_000,
        // Fewer if they are large: a read of the log ends after 1 MiB, and a message holds 4 MiB.
        max_payload_entries: 128,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every),
        max_in_snapshot_log_to_keep: KEPT_ENTRIES.min(snapshot_every / 2),
        ..Config::default()
    }
}
