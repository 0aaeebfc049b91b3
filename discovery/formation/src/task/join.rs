//! Formation's side of a join: asks members for admission and handles their replies. The retry state
//! decides when.

use std::sync::Arc;
use std::time::Instant;

use muster_messages::hello::refusal::Reason;
use muster_messages::hello::{Admitted, JoinReply, JoinRequest, join_reply::Outcome};
use muster_types::text::sanitize;
use muster_types::{ClusterId, NodeId};
use tracing::info;

use super::FormationTask;
use super::join_retry::JoinResult;
use crate::birth::Commitment;
use crate::birth::step::Event;
use crate::candidate::CandidateState;
use crate::network::Network;
use crate::{FormationError, Formed, candidate, jobs};

impl<N: Network> FormationTask<N> {
    pub(super) fn request_admission(&mut self, members: &[NodeId], now: Instant) {
        let joining = &mut self.joining;
        let peers = members.iter().filter_map(|id| self.planner.peer(id));
        let kind = |candidate: &candidate::Candidate| match candidate.state {
            CandidateState::Member(cluster) => Some((candidate.role, cluster)),
            CandidateState::Fresh | CandidateState::Bound => None,
        };
        joining.on_members(peers.filter_map(|peer| kind(&peer.candidate)), now);
        let (asked, named) = joining.choose(members);
        let name = self.planner.peer(&named).map(|peer| peer.candidate.name.to_string());
        let name = name.unwrap_or_else(|| named.short());
        self.waiting_for = match &joining.last_failure {
            Some(last_failure) => format!("admission to the cluster of {name}: {last_failure}"),
            None => format!("admission to the cluster of {name}"),
        };
        if !joining.try_start(asked, now) {
            return;
        }
        let addresses = self
            .planner
            .peer(&asked)
            .map_or_else(Vec::new, |peer| peer.candidate.addresses.clone());
        let route = jobs::Route { to: asked, session: self.session(&asked), addresses };
        let request = JoinRequest { candidate: Some(self.candidate.borrow().clone()) };
        self.jobs.spawn(jobs::join(Arc::clone(&self.network), route, request));
    }

    pub(super) async fn on_join_reply(
        &mut self,
        reply: Result<JoinReply, String>,
        now: Instant,
    ) -> Result<(), FormationError> {
        let mut admission = None;
        let result = match reply.map(|reply| reply.outcome) {
            Err(why) => JoinResult::Failed(why),
            Ok(None) => JoinResult::Failed("empty reply".to_owned()),
            Ok(Some(Outcome::Refused(refusal))) => {
                let why = sanitize(&refusal.message);
                match refusal.reason() {
                    Reason::NotNow | Reason::Unspecified => JoinResult::Failed(why),
                    _ => JoinResult::Refused(why),
                }
            }
            Ok(Some(Outcome::Redirect(redirect))) => {
                self.planner.on_peer_hints(&candidate::hint_addresses(&redirect.peers), now);
                JoinResult::Redirected
            }
            Ok(Some(Outcome::Admitted(admitted))) => {
                admission = Some(admitted);
                JoinResult::Admitted
            }
        };
        self.joining.on_result(result, rand::random_range(0.0..=1.0), now);
        match admission {
            Some(admitted) => self.on_admitted(admitted).await,
            None => Ok(()),
        }
    }

    pub(super) async fn on_admitted(&mut self, admitted: Admitted) -> Result<(), FormationError> {
        let Ok(cluster) = ClusterId::try_from(admitted.cluster_id.as_slice()) else {
            self.joining.last_failure = Some("the admission names no cluster".to_owned());
            return Ok(());
        };
        self.handle(Event::Admitted(cluster)).await?;
        if self.birth.record().commitment == Commitment::Joined(cluster) {
            info!(%cluster, "joined");
            self.formed.send_replace(Some(Formed::Joined(Box::new(admitted))));
            self.publish();
        }
        Ok(())
    }
}
