//! Records rejected peers, and members that made forbidden calls, in the audit log. Rate-limited,
//! so that neither a flood nor one misconfigured machine that retries for days fills the log.
//! Entries skipped here are counted; those dropped by a full queue are not.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use muster_pki::identity::node_id;
use muster_transport::hello::{RejectReason, Rejection};
use muster_transport::limits::RateLimiter;
use muster_types::UnixMillis;
use tokio::sync::mpsc;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::raft::Group;
use crate::status::StatusReader;
use muster_state::command::{Actor, Admit, RecordAudit};
use muster_state::{AuditEntry, ClusterState, Command, Refusal};

/// Capacity of the queue of rejections.
const QUEUE_CAPACITY: usize = 64;

/// Maximum burst of audit entries after an idle time.
const BURST: u32 = 10;

/// Interval after which one more entry is allowed.
const REFILL_INTERVAL: Duration = Duration::from_secs(6);

/// Creates the queue between the hello service and [`audit`].
pub fn rejection_queue() -> (mpsc::Sender<Rejection>, mpsc::Receiver<Rejection>) {
    mpsc::channel(QUEUE_CAPACITY)
}

/// Time in which the same rejection (address, claimed identity, reason) is recorded once.
const DEDUP_WINDOW: Duration = Duration::from_hours(1);

/// Maximum number of rejections remembered for that.
const MAX_REMEMBERED: usize = 1024;

/// Key of equal rejections: source address, claimed identity, reason.
type RejectionKey = (IpAddr, String, String);

/// Limits on audit entries: their rate, and one entry per peer within the window.
#[derive(Debug)]
struct AuditLimiter {
    entries: RateLimiter<()>,
    peers: RateLimiter<RejectionKey>,
}

impl AuditLimiter {
    fn new() -> Self {
        Self {
            entries: RateLimiter::new(BURST, REFILL_INTERVAL, 1),
            peers: RateLimiter::new(1, DEDUP_WINDOW, MAX_REMEMBERED),
        }
    }

    fn try_acquire(&mut self, key: RejectionKey, now: Instant) -> bool {
        let allowed = !self.peers.is_limited(&key, now) && self.entries.try_acquire((), now);
        if allowed {
            self.peers.record(key, now);
        }
        allowed
    }
}

/// Records rejections in the audit log until `stop`.
pub async fn audit(
    mut refused: mpsc::Receiver<Rejection>,
    status: StatusReader,
    stop: CancellationToken,
) {
    let mut limiter = AuditLimiter::new();
    let mut skipped = 0_u64;
    while let Some(Some(rejection)) = stop.run_until_cancelled(refused.recv()).await {
        let group = status.group();
        let claimed_identity =
            claimed_identity(&rejection, group.as_ref().map(Group::state).as_deref());
        let key = (rejection.remote.ip(), claimed_identity.clone(), rejection.reason.to_string());
        if !limiter.try_acquire(key, time::Instant::now().into_std()) {
            skipped += 1;
            continue;
        }
        warn!(
            remote = %rejection.remote, claimed_identity, reason = %rejection.reason, skipped,
            "peer rejected"
        );
        let Some(group) = group else { continue };
        let also = match skipped {
            0 => String::new(),
            n => format!(" ({n} more skipped before it)"),
        };
        let record = RecordAudit {
            by: group.me(),
            action: "refuse-stranger".to_owned(),
            subject: format!("{} {claimed_identity}", rejection.remote.ip()),
            outcome: format!("refused: {}{also}", rejection.reason),
        };
        skipped = 0;
        let proposed = group.propose(Command::RecordAudit(record));
        if let Some(Err(error)) = stop.run_until_cancelled(proposed).await {
            warn!(%error, "cannot record a rejection in the audit log");
        }
    }
}

/// Describes the identity that a rejected peer claimed: a token, or the key of a known node.
fn claimed_identity(refused: &Rejection, state: Option<&ClusterState>) -> String {
    match refused.reason {
        RejectReason::NotForWorkers | RejectReason::Removed => {
            let node = node_id(&refused.public_key);
            let name = state.map(|state| state.actor_name(&Actor::Node(node)));
            format!("as {}", name.unwrap_or_else(|| format!("node {}", node.short())))
        }
        RejectReason::NotAToken | RejectReason::UnknownToken | RejectReason::WrongProof => {
            let token = refused.token.as_ref();
            format!("with token {}", token.map_or_else(|| "none".to_owned(), ToString::to_string))
        }
    }
}

/// Time in which the same refused join is recorded once.
const JOIN_DEDUP_WINDOW: Duration = Duration::from_mins(10);

/// Maximum number of refused joins that are recorded per minute.
const MAX_JOINS_PER_MINUTE: usize = 10;

/// Returns true if a refused join belongs in the audit log. A machine keeps retrying, so a recent
/// equal entry suppresses it, and so does a full minute. Decided from the group's state, so that
/// all nodes share the limit.
pub(super) fn should_record(
    state: &ClusterState,
    admit: &Admit,
    refusal: &Refusal,
    now: UnixMillis,
) -> bool {
    let subject = format!("node {}", admit.name);
    let age = |entry: &AuditEntry| now.saturating_duration_since(entry.time);
    let refused = state.audit().rev().filter(|entry| entry.action == "admit");
    let recent = refused
        .take_while(|entry| age(entry) < JOIN_DEDUP_WINDOW)
        .filter(|entry| entry.outcome != "ok");
    let mut within_a_minute = 0;
    for entry in recent {
        if entry.subject == subject && entry.outcome == refusal.message {
            return false;
        }
        within_a_minute += usize::from(age(entry) < Duration::from_mins(1));
    }
    within_a_minute < MAX_JOINS_PER_MINUTE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_recorded_at_a_limited_rate() {
        let start = Instant::now();
        let mut limiter = AuditLimiter::new();
        let mut number = 0_u32;
        let mut recorded = |limiter: &mut AuditLimiter, at: Duration| {
            let mut count = 0;
            for _ in 0..1000 {
                number += 1;
                let key = (IpAddr::from(number.to_be_bytes()), String::new(), String::new());
                count += usize::from(limiter.try_acquire(key, start + at));
            }
            count
        };
        assert_eq!(recorded(&mut limiter, Duration::ZERO), 10);
        assert_eq!(recorded(&mut limiter, Duration::from_secs(5)), 0);
        assert_eq!(recorded(&mut limiter, REFILL_INTERVAL), 1);
        assert_eq!(recorded(&mut limiter, REFILL_INTERVAL * 3), 2);
        assert_eq!(recorded(&mut limiter, REFILL_INTERVAL * 1000), 10);
    }

    #[test]
    fn one_machine_that_retries_for_days_is_recorded_once_an_hour() {
        let start = Instant::now();
        let mut limiter = AuditLimiter::new();
        let key = || (IpAddr::from([10, 0, 0, 7]), "abc".to_owned(), "unknown".to_owned());
        let tries = (0..7200).map(|second| start + Duration::from_secs(second));
        assert_eq!(tries.filter(|at| limiter.try_acquire(key(), *at)).count(), 2);
    }
}
