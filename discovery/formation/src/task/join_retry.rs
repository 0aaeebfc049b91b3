//! Retry state of the requests for admission: which member to ask, when, and which reason to report.
//! Pure: time and randomness are arguments. Sends no request.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use muster_types::{ClusterId, NodeId, Role};

/// Delay between requests for admission: initial and maximum.
const JOIN_RETRY: Duration = Duration::from_millis(250);
const JOIN_RETRY_MAX: Duration = Duration::from_secs(5);

/// The same after a refusal that only an operator can resolve; randomly reduced by up to half.
const REFUSED_RETRY: Duration = Duration::from_secs(5);
const REFUSED_RETRY_MAX: Duration = Duration::from_secs(30);

/// Maximum number of kinds of members to distinguish: peers may claim any cluster.
const MAX_KINDS: usize = 16;

/// A kind of member; other kinds may answer differently.
pub(super) type MemberKind = (Role, ClusterId);

/// Retry state of the requests for admission.
pub(super) struct JoinRetry {
    pub(super) is_busy: bool,
    pub(super) next: Instant,
    pause: Duration,
    /// The delay after the next refusal that only an operator can resolve, while it stays the same.
    refusal_pause: Duration,
    /// Reason why the last request failed.
    pub(super) last_failure: Option<String>,
    /// The last refusal that only an operator can resolve.
    last_refusal: Option<String>,
    /// The member that the last request was sent to.
    last_asked: Option<NodeId>,
    /// The member named in the reported reason: the one that was asked when the reason was new.
    /// Naming another at each request or greeting would split one reason into many.
    named: Option<NodeId>,
    kinds: BTreeSet<MemberKind>,
    /// Number of requests made; selects the member to ask.
    count: usize,
}

/// Result of a request.
pub(super) enum JoinResult {
    /// A temporary failure.
    Failed(String),
    /// A refusal that only an operator can resolve.
    Refused(String),
    /// A redirect to other members.
    Redirected,
    Admitted,
}

impl JoinRetry {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            is_busy: false,
            next: now,
            pause: JOIN_RETRY,
            refusal_pause: REFUSED_RETRY,
            last_failure: None,
            last_refusal: None,
            last_asked: None,
            named: None,
            kinds: BTreeSet::new(),
            count: 0,
        }
    }

    /// Updates the kinds of members present: a new kind is asked immediately.
    pub(super) fn on_members(&mut self, kinds: impl IntoIterator<Item = MemberKind>, now: Instant) {
        for kind in kinds {
            if self.kinds.len() < MAX_KINDS && self.kinds.insert(kind) {
                self.refusal_pause = REFUSED_RETRY;
                self.next = self.next.min(now);
            }
        }
    }

    /// Chooses the member to ask and the member to name.
    pub(super) fn choose(&mut self, members: &[NodeId]) -> (NodeId, NodeId) {
        let asked = members[self.count % members.len()];
        let named = self.named.filter(|named| members.contains(named)).unwrap_or(asked);
        self.named = Some(named);
        (asked, named)
    }

    /// Starts a request to this member if one is due.
    pub(super) fn try_start(&mut self, member: NodeId, now: Instant) -> bool {
        let is_time = !self.is_busy && now >= self.next;
        if is_time {
            self.is_busy = true;
            self.last_asked = Some(member);
            self.count += 1;
        }
        is_time
    }

    /// Records the result of a request; `chance` is a random number from 0 to 1.
    pub(super) fn on_result(&mut self, result: JoinResult, chance: f64, now: Instant) {
        self.is_busy = false;
        self.next = now + self.pause.mul_f64(0.5 + chance);
        self.pause = (self.pause * 2).min(JOIN_RETRY_MAX);
        match result {
            JoinResult::Failed(why) => self.record_failure(why),
            JoinResult::Refused(why) => {
                if self.last_refusal.as_ref() != Some(&why) {
                    self.last_refusal = Some(why.clone());
                    self.refusal_pause = REFUSED_RETRY;
                }
                self.next = now + self.refusal_pause.mul_f64(0.5 + chance / 2.0);
                self.refusal_pause = (self.refusal_pause * 2).min(REFUSED_RETRY_MAX);
                self.record_failure(why);
            }
            JoinResult::Redirected => self.next = now + JOIN_RETRY,
            JoinResult::Admitted => {}
        }
    }

    pub(super) fn record_failure(&mut self, why: String) {
        if self.last_failure.as_ref() != Some(&why) {
            self.last_failure = Some(why);
            self.named = self.last_asked;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn member(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn kind(role: Role, cluster: u8) -> MemberKind {
        (role, ClusterId::from_bytes([cluster; 32]))
    }

    /// Starts a due request and records the result; returns the longest delay that may follow.
    fn request(joining: &mut JoinRetry, result: JoinResult) -> Duration {
        let now = joining.next;
        let (asked, _) = joining.choose(&[member(1), member(2), member(3)]);
        assert!(joining.try_start(asked, now), "a request is due");
        assert!(!joining.try_start(asked, now), "a request is under way");
        joining.on_result(result, 1.0, now);
        joining.next - now
    }

    fn name_taken() -> JoinResult {
        JoinResult::Refused("the name is taken".to_owned())
    }

    #[test]
    fn a_lasting_refusal_is_retried_less_and_less_often() {
        let mut joining = JoinRetry::new(Instant::now());
        let pauses: Vec<_> =
            (0..5).map(|_| request(&mut joining, name_taken()).as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 30, 30]);
        // A temporary failure in between does not count as another refusal.
        assert!(request(&mut joining, JoinResult::Failed("no answer".to_owned())) < SECOND * 10);
        assert_eq!(request(&mut joining, JoinResult::Redirected), JOIN_RETRY);
        assert_eq!(request(&mut joining, name_taken()), REFUSED_RETRY_MAX);
        let other = JoinResult::Refused("the token was revoked".to_owned());
        assert_eq!(request(&mut joining, other), REFUSED_RETRY);
        assert_eq!(request(&mut joining, name_taken()), REFUSED_RETRY);
    }

    #[test]
    fn a_temporary_failure_is_retried_soon() {
        let mut joining = JoinRetry::new(Instant::now());
        let busy = || JoinResult::Failed("no leader".to_owned());
        assert_eq!(request(&mut joining, busy()), JOIN_RETRY.mul_f64(1.5));
        for _ in 0..10 {
            request(&mut joining, busy());
        }
        assert_eq!(request(&mut joining, busy()), JOIN_RETRY_MAX.mul_f64(1.5));
    }

    #[test]
    fn members_of_a_new_kind_are_asked_at_once_and_of_a_known_kind_are_not() {
        let mut now = Instant::now();
        let mut joining = JoinRetry::new(now);
        joining.on_members([kind(Role::Worker, 1)], now);
        for new in [kind(Role::ControlPlane, 1), kind(Role::ControlPlane, 2)] {
            for _ in 0..5 {
                request(&mut joining, name_taken());
            }
            now = joining.next;
            joining.next += SECOND * 20;
            joining.on_members([kind(Role::Worker, 1)], now);
            assert_eq!(joining.next, now + SECOND * 20);
            joining.on_members([kind(Role::Worker, 1), new], now);
            assert_eq!(joining.next, now);
            assert_eq!(request(&mut joining, name_taken()), REFUSED_RETRY);
        }
        // A peer that invents clusters cannot make this node ask indefinitely.
        for cluster in 3..=u8::MAX {
            joining.on_members([kind(Role::ControlPlane, cluster)], now);
        }
        request(&mut joining, name_taken());
        joining.on_members([kind(Role::Worker, u8::MAX)], now);
        assert!(joining.next > now);
    }

    /// The bug: six log lines per second, because the last peer to greet was named.
    #[test]
    fn one_reason_names_one_member_for_all_requests() {
        let mut joining = JoinRetry::new(Instant::now());
        let (first, named) = joining.choose(&[member(1), member(2)]);
        assert_eq!((first, named), (member(1), member(1)));
        assert_eq!(joining.choose(&[member(2), member(1)]), (member(2), member(1)));
        let mut asked = BTreeSet::new();
        for _ in 0..6 {
            request(&mut joining, name_taken());
            asked.extend(joining.last_asked);
            assert_eq!(joining.choose(&[member(3), member(2), member(1)]).1, member(1));
        }
        assert_eq!(asked.len(), 3);
        request(&mut joining, JoinResult::Refused("the token was revoked".to_owned()));
        let news = joining.last_asked;
        assert_eq!(Some(joining.choose(&[member(1), member(2), member(3)]).1), news);
        // A member that has left is not named.
        assert_eq!(joining.choose(&[member(4)]), (member(4), member(4)));
    }
}
