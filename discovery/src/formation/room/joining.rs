//! Asking a member for admission, again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_proto::wire::hello::refusal::Reason;
use muster_proto::wire::hello::{Admitted, JoinReply, JoinRequest, join_reply::Outcome};
use muster_proto::{ClusterId, NodeId};
use tracing::info;

use super::{Room, up_to};
use crate::birth::Bond;
use crate::birth::step::Event;
use crate::foreign::plain;
use crate::formation::network::Network;
use crate::formation::{FormationError, Formed, candidate, jobs};

/// Between requests to be admitted: first, at most, and when only an operator can help.
const JOIN_AGAIN: Duration = Duration::from_millis(250);
const JOIN_AGAIN_MAX: Duration = Duration::from_secs(5);
const JOIN_REFUSED: Duration = Duration::from_secs(10);

/// Requests to be admitted.
pub(super) struct Joining {
    pub(super) is_busy: bool,
    pub(super) next: Instant,
    pause: Duration,
    /// Why the last one failed.
    refused: Option<String>,
    /// How many were made; picks the member to ask.
    count: usize,
}

impl Joining {
    pub(super) fn new(now: Instant) -> Self {
        Self { is_busy: false, next: now, pause: JOIN_AGAIN, refused: None, count: 0 }
    }
}

impl<N: Network> Room<N> {
    pub(super) fn join(&mut self, members: &[NodeId], now: Instant) {
        let joining = &mut self.joining;
        let asked = members[joining.count % members.len()];
        let name = self.view.peer(&asked).map(|peer| peer.candidate.name.to_string());
        let name = name.unwrap_or_else(|| asked.short());
        self.waiting_for = match &joining.refused {
            Some(refused) => format!("admission to the cluster of {name}: {refused}"),
            None => format!("admission to the cluster of {name}"),
        };
        if joining.is_busy || now < joining.next {
            return;
        }
        joining.is_busy = true;
        joining.count += 1;
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
        let joining = &mut self.joining;
        joining.is_busy = false;
        let pause = joining.pause;
        joining.pause = (pause * 2).min(JOIN_AGAIN_MAX);
        joining.next = now + pause / 2 + up_to(pause);
        match reply.map(|reply| reply.outcome) {
            Err(why) => joining.refused = Some(why),
            Ok(None) => joining.refused = Some("the answer was empty".to_owned()),
            Ok(Some(Outcome::Refused(refusal))) => {
                if !matches!(refusal.reason(), Reason::NotNow | Reason::Unspecified) {
                    joining.next = now + JOIN_REFUSED;
                }
                joining.refused = Some(plain(&refusal.message));
            }
            Ok(Some(Outcome::Redirect(redirect))) => {
                joining.next = now + JOIN_AGAIN;
                self.view.relayed(&candidate::hinted(&redirect.peers), now);
            }
            Ok(Some(Outcome::Admitted(admitted))) => self.admitted(admitted).await?,
        }
        Ok(())
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
