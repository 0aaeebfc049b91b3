//! Requests for admission to a cluster, with retries.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_messages::hello::refusal::Reason;
use muster_messages::hello::{Admitted, JoinReply, JoinRequest, join_reply::Outcome};
use muster_types::{ClusterId, NodeId, Role};
use tracing::info;

use super::Room;
use crate::birth::Bond;
use crate::birth::step::Event;
use crate::candidate::Standing;
use crate::network::Network;
use crate::{FormationError, Formed, candidate, jobs};
use muster_types::text::sanitize;

/// Delay between requests for admission: initial and maximum.
const JOIN_AGAIN: Duration = Duration::from_millis(250);
const JOIN_AGAIN_MAX: Duration = Duration::from_secs(5);

/// The same after a refusal that only an operator can resolve; randomly reduced by up to half.
const JOIN_REFUSED: Duration = Duration::from_secs(5);
const JOIN_REFUSED_MAX: Duration = Duration::from_secs(30);

/// Maximum number of kinds of members to distinguish: peers may claim any cluster.
const KINDS: usize = 16;

/// A kind of member; other kinds may answer differently.
type Kind = (Role, ClusterId);

/// Retry state of the requests for admission. Pure: time and randomness are arguments.
pub(super) struct Joining {
    pub(super) is_busy: bool,
    pub(super) next: Instant,
    pause: Duration,
    /// The delay after the next refusal that only an operator can resolve, while it stays the same.
    rest: Duration,
    /// Reason why the last request failed.
    refused: Option<String>,
    /// The last refusal that only an operator can resolve.
    verdict: Option<String>,
    /// The member that the last request was sent to.
    asked: Option<NodeId>,
    /// The member named in the reported reason: the one that was asked when the reason was new.
    /// Naming another at each request or greeting would split one reason into many.
    named: Option<NodeId>,
    kinds: BTreeSet<Kind>,
    /// Number of requests made; selects the member to ask.
    count: usize,
}

/// Result of a request.
enum Heard {
    /// A temporary failure.
    Failed(String),
    /// A refusal that only an operator can resolve.
    Refused(String),
    /// A redirect to other members.
    Elsewhere,
    Admitted,
}

impl Joining {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            is_busy: false,
            next: now,
            pause: JOIN_AGAIN,
            rest: JOIN_REFUSED,
            refused: None,
            verdict: None,
            asked: None,
            named: None,
            kinds: BTreeSet::new(),
            count: 0,
        }
    }

    /// Updates the kinds of members present: a new kind is asked immediately.
    fn sees(&mut self, kinds: impl IntoIterator<Item = Kind>, now: Instant) {
        for kind in kinds {
            if self.kinds.len() < KINDS && self.kinds.insert(kind) {
                self.rest = JOIN_REFUSED;
                self.next = self.next.min(now);
            }
        }
    }

    /// Chooses the member to ask and the member to name.
    fn choose(&mut self, members: &[NodeId]) -> (NodeId, NodeId) {
        let asked = members[self.count % members.len()];
        let named = self.named.filter(|named| members.contains(named)).unwrap_or(asked);
        self.named = Some(named);
        (asked, named)
    }

    /// Starts a request to this member if one is due.
    fn asks(&mut self, member: NodeId, now: Instant) -> bool {
        let is_time = !self.is_busy && now >= self.next;
        if is_time {
            self.is_busy = true;
            self.asked = Some(member);
            self.count += 1;
        }
        is_time
    }

    /// Records the result of a request; `chance` is a random number from 0 to 1.
    fn heard(&mut self, heard: Heard, chance: f64, now: Instant) {
        self.is_busy = false;
        self.next = now + self.pause.mul_f64(0.5 + chance);
        self.pause = (self.pause * 2).min(JOIN_AGAIN_MAX);
        match heard {
            Heard::Failed(why) => self.fails(why),
            Heard::Refused(why) => {
                if self.verdict.as_ref() != Some(&why) {
                    self.verdict = Some(why.clone());
                    self.rest = JOIN_REFUSED;
                }
                self.next = now + self.rest.mul_f64(0.5 + chance / 2.0);
                self.rest = (self.rest * 2).min(JOIN_REFUSED_MAX);
                self.fails(why);
            }
            Heard::Elsewhere => self.next = now + JOIN_AGAIN,
            Heard::Admitted => {}
        }
    }

    fn fails(&mut self, why: String) {
        if self.refused.as_ref() != Some(&why) {
            self.refused = Some(why);
            self.named = self.asked;
        }
    }
}

impl<N: Network> Room<N> {
    pub(super) fn join(&mut self, members: &[NodeId], now: Instant) {
        let joining = &mut self.joining;
        let peers = members.iter().filter_map(|id| self.view.peer(id));
        let kind = |candidate: &candidate::Candidate| match candidate.standing {
            Standing::Member(cluster) => Some((candidate.role, cluster)),
            Standing::Fresh | Standing::Bound => None,
        };
        joining.sees(peers.filter_map(|peer| kind(&peer.candidate)), now);
        let (asked, named) = joining.choose(members);
        let name = self.view.peer(&named).map(|peer| peer.candidate.name.to_string());
        let name = name.unwrap_or_else(|| named.short());
        self.waiting_for = match &joining.refused {
            Some(refused) => format!("admission to the cluster of {name}: {refused}"),
            None => format!("admission to the cluster of {name}"),
        };
        if !joining.asks(asked, now) {
            return;
        }
        let addresses =
            self.view.peer(&asked).map_or_else(Vec::new, |peer| peer.candidate.addresses.clone());
        let route = jobs::Route { to: asked, session: self.session(&asked), addresses };
        let request = JoinRequest { candidate: Some(self.candidate.borrow().clone()) };
        self.jobs.spawn(jobs::join(Arc::clone(&self.network), route, request));
    }

    pub(super) async fn join_answered(
        &mut self,
        reply: Result<JoinReply, String>,
        now: Instant,
    ) -> Result<(), FormationError> {
        let mut admission = None;
        let heard = match reply.map(|reply| reply.outcome) {
            Err(why) => Heard::Failed(why),
            Ok(None) => Heard::Failed("empty reply".to_owned()),
            Ok(Some(Outcome::Refused(refusal))) => {
                let why = sanitize(&refusal.message);
                match refusal.reason() {
                    Reason::NotNow | Reason::Unspecified => Heard::Failed(why),
                    _ => Heard::Refused(why),
                }
            }
            Ok(Some(Outcome::Redirect(redirect))) => {
                self.view.relayed(&candidate::hinted(&redirect.peers), now);
                Heard::Elsewhere
            }
            Ok(Some(Outcome::Admitted(admitted))) => {
                admission = Some(admitted);
                Heard::Admitted
            }
        };
        self.joining.heard(heard, rand::random_range(0.0..=1.0), now);
        match admission {
            Some(admitted) => self.admitted(admitted).await,
            None => Ok(()),
        }
    }

    pub(super) async fn admitted(&mut self, admitted: Admitted) -> Result<(), FormationError> {
        let Ok(cluster) = ClusterId::try_from(admitted.cluster_id.as_slice()) else {
            self.joining.refused = Some("the admission names no cluster".to_owned());
            return Ok(());
        };
        self.take(Event::Admitted(cluster)).await?;
        if self.birth.record().bond == Bond::Joined(cluster) {
            info!(%cluster, "joined");
            self.formed.send_replace(Some(Formed::Joined(Box::new(admitted))));
            self.publish();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn member(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn kind(role: Role, cluster: u8) -> Kind {
        (role, ClusterId::from_bytes([cluster; 32]))
    }

    /// Starts a due request and records the result; returns the longest delay that may follow.
    fn told(joining: &mut Joining, heard: Heard) -> Duration {
        let now = joining.next;
        let (asked, _) = joining.choose(&[member(1), member(2), member(3)]);
        assert!(joining.asks(asked, now), "a request is due");
        assert!(!joining.asks(asked, now), "a request is under way");
        joining.heard(heard, 1.0, now);
        joining.next - now
    }

    fn taken() -> Heard {
        Heard::Refused("the name is taken".to_owned())
    }

    #[test]
    fn a_refusal_that_stays_is_asked_about_ever_less_often() {
        let mut joining = Joining::new(Instant::now());
        let pauses: Vec<_> = (0..5).map(|_| told(&mut joining, taken()).as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 30, 30]);
        // A temporary failure in between does not count as another refusal.
        assert!(told(&mut joining, Heard::Failed("no answer".to_owned())) < SECOND * 10);
        assert_eq!(told(&mut joining, Heard::Elsewhere), JOIN_AGAIN);
        assert_eq!(told(&mut joining, taken()), JOIN_REFUSED_MAX);
        let other = Heard::Refused("the token was revoked".to_owned());
        assert_eq!(told(&mut joining, other), JOIN_REFUSED);
        assert_eq!(told(&mut joining, taken()), JOIN_REFUSED);
    }

    #[test]
    fn what_fails_for_now_is_asked_again_soon() {
        let mut joining = Joining::new(Instant::now());
        let busy = || Heard::Failed("no leader".to_owned());
        assert_eq!(told(&mut joining, busy()), JOIN_AGAIN.mul_f64(1.5));
        for _ in 0..10 {
            told(&mut joining, busy());
        }
        assert_eq!(told(&mut joining, busy()), JOIN_AGAIN_MAX.mul_f64(1.5));
    }

    #[test]
    fn members_of_a_new_kind_are_asked_at_once_and_of_a_known_kind_are_not() {
        let mut now = Instant::now();
        let mut joining = Joining::new(now);
        joining.sees([kind(Role::Worker, 1)], now);
        for new in [kind(Role::ControlPlane, 1), kind(Role::ControlPlane, 2)] {
            for _ in 0..5 {
                told(&mut joining, taken());
            }
            now = joining.next;
            joining.next += SECOND * 20;
            joining.sees([kind(Role::Worker, 1)], now);
            assert_eq!(joining.next, now + SECOND * 20);
            joining.sees([kind(Role::Worker, 1), new], now);
            assert_eq!(joining.next, now);
            assert_eq!(told(&mut joining, taken()), JOIN_REFUSED);
        }
        // A peer that invents clusters cannot make this node ask indefinitely.
        for cluster in 3..=u8::MAX {
            joining.sees([kind(Role::ControlPlane, cluster)], now);
        }
        told(&mut joining, taken());
        joining.sees([kind(Role::Worker, u8::MAX)], now);
        assert!(joining.next > now);
    }

    /// The bug: six log lines per second, because the last peer to greet was named.
    #[test]
    fn one_reason_names_one_member_whoever_is_asked() {
        let mut joining = Joining::new(Instant::now());
        let (first, named) = joining.choose(&[member(1), member(2)]);
        assert_eq!((first, named), (member(1), member(1)));
        assert_eq!(joining.choose(&[member(2), member(1)]), (member(2), member(1)));
        let mut asked = BTreeSet::new();
        for _ in 0..6 {
            told(&mut joining, taken());
            asked.extend(joining.asked);
            assert_eq!(joining.choose(&[member(3), member(2), member(1)]).1, member(1));
        }
        assert_eq!(asked.len(), 3);
        told(&mut joining, Heard::Refused("the token was revoked".to_owned()));
        let news = joining.asked;
        assert_eq!(Some(joining.choose(&[member(1), member(2), member(3)]).1), news);
        // A member that has left is not named.
        assert_eq!(joining.choose(&[member(4)]), (member(4), member(4)));
    }
}
