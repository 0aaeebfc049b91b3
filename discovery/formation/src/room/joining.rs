//! Asking a member for admission, again and again.

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

/// Between requests to be admitted: first and at most.
const JOIN_AGAIN: Duration = Duration::from_millis(250);
const JOIN_AGAIN_MAX: Duration = Duration::from_secs(5);

/// The same when only an operator can help; at random down to half of it.
const JOIN_REFUSED: Duration = Duration::from_secs(5);
const JOIN_REFUSED_MAX: Duration = Duration::from_secs(30);

/// The most kinds of members that are told apart: peers may claim any cluster.
const KINDS: usize = 16;

/// A kind of members, which may answer otherwise than the others.
type Kind = (Role, ClusterId);

/// Requests to be admitted. Pure: time and chance are arguments.
pub(super) struct Joining {
    pub(super) is_busy: bool,
    pub(super) next: Instant,
    pause: Duration,
    /// The pause after the next refusal that only an operator can resolve, while it stays the same.
    rest: Duration,
    /// Why the last request failed.
    refused: Option<String>,
    /// The last refusal that only an operator can resolve.
    verdict: Option<String>,
    /// Whom the last request went to.
    asked: Option<NodeId>,
    /// Whose cluster is named: who was asked when the reason was new. Another at every request, or at
    /// every greeting, would make one reason many.
    named: Option<NodeId>,
    kinds: BTreeSet<Kind>,
    /// How many were made; picks the member to ask.
    count: usize,
}

/// What came of a request.
enum Heard {
    /// Nothing, this time.
    Failed(String),
    /// What only an operator can resolve.
    Refused(String),
    /// Others are to be asked.
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

    /// Takes which members there are: a kind that was never there is asked at once.
    fn sees(&mut self, kinds: impl IntoIterator<Item = Kind>, now: Instant) {
        for kind in kinds {
            if self.kinds.len() < KINDS && self.kinds.insert(kind) {
                self.rest = JOIN_REFUSED;
                self.next = self.next.min(now);
            }
        }
    }

    /// Which of the members to ask, and which to name.
    fn choose(&mut self, members: &[NodeId]) -> (NodeId, NodeId) {
        let asked = members[self.count % members.len()];
        let named = self.named.filter(|named| members.contains(named)).unwrap_or(asked);
        self.named = Some(named);
        (asked, named)
    }

    /// Whether it is time to ask this one; if so, it is being asked.
    fn asks(&mut self, member: NodeId, now: Instant) -> bool {
        let is_time = !self.is_busy && now >= self.next;
        if is_time {
            self.is_busy = true;
            self.asked = Some(member);
            self.count += 1;
        }
        is_time
    }

    /// Takes an answer; `chance` is from 0 to 1.
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
        let request = JoinRequest { me: Some(self.candidate.borrow().clone()) };
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
            Ok(None) => Heard::Failed("the answer was empty".to_owned()),
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

    /// Asks when it is time and hears that; the longest pause that may follow.
    fn told(joining: &mut Joining, heard: Heard) -> Duration {
        let now = joining.next;
        let (asked, _) = joining.choose(&[member(1), member(2), member(3)]);
        assert!(joining.asks(asked, now), "it is time");
        assert!(!joining.asks(asked, now), "it is being asked");
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
        // What fails in between is no other refusal.
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
        // Whoever makes up clusters does not have it ask without end.
        for cluster in 3..=u8::MAX {
            joining.sees([kind(Role::ControlPlane, cluster)], now);
        }
        told(&mut joining, taken());
        joining.sees([kind(Role::Worker, u8::MAX)], now);
        assert!(joining.next > now);
    }

    /// Six lines a second: whoever had greeted last was named.
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
        // Who has gone is not named.
        assert_eq!(joining.choose(&[member(4)]), (member(4), member(4)));
    }
}
