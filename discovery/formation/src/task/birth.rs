//! Formation's side of the birth protocol: feeds events in and sends the messages out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_messages::hello;
use muster_pki::identity;
use muster_types::{NodeId, PublicKey};
use tracing::{info, warn};

use super::FormationTask;
use super::timing::{RESTART_SETTLE_TIMEOUT, clock, random_up_to, settle_timeout};
use crate::birth::driver::Outgoing;
use crate::birth::step::Event;
use crate::birth::wire::from_wire;
use crate::birth::{BirthRecord, Commitment, Draft, Founder, Message, Proposal};
use crate::network::Network;
use crate::{FormationError, jobs};

/// Maximum random pause after an abandoned birth.
const MAX_PAUSE: Duration = Duration::from_millis(400);

impl<N: Network> FormationTask<N> {
    /// Waits for the promised proposal to be settled, and inquires after a timeout.
    pub(super) async fn await_settlement(&mut self, now: Instant) -> Result<(), FormationError> {
        let record = self.birth.record();
        let Some(promise) = record.promise() else { return Ok(()) };
        let names: Vec<_> =
            promise.proposal.founders().iter().map(|founder| founder.name.to_string()).collect();
        self.waiting_for = format!(
            "{} to settle the birth of cluster {}{}",
            names.join(", "),
            promise.proposal.cluster_id().short(),
            self.planner.unreachable_addresses()
        );
        let own = promise.proposal.cluster_id();
        let (born, others) = self.planner.cluster_members(own, now);
        if born {
            // A founder that knows the outcome is reachable.
            let soon = now + RESTART_SETTLE_TIMEOUT;
            self.settle_deadline =
                Some(self.settle_deadline.map_or(soon, |deadline| deadline.min(soon)));
        } else if !others.is_empty() {
            self.request_admission(&others, now);
        }
        let deadline =
            *self.settle_deadline.get_or_insert(now + settle_timeout(self.abandoned_births));
        if now >= deadline {
            self.settle_deadline = Some(now + settle_timeout(self.abandoned_births));
            self.handle(Event::SettleTimeout).await?;
        }
        Ok(())
    }

    pub(super) fn draft(&mut self, founders: Vec<Founder>) -> Option<Proposal> {
        let params = self.birth.params();
        let draft = Draft {
            token_id: params.token_id.clone(),
            founders,
            nonce: rand::random(),
            config_digest: params.config_digest,
            proposer: params.me,
        };
        let proposal = Proposal::new(draft);
        if let Err(error) = &proposal {
            self.waiting_for = error.to_string();
        }
        proposal.ok()
    }

    /// Handles one protocol event and sends the messages. Replies to the sender of `Received` are
    /// returned instead of sent.
    pub(super) async fn handle(&mut self, event: Event) -> Result<Vec<Message>, FormationError> {
        let asker = match &event {
            Event::Received { from, .. } => Some(*from),
            Event::Propose(_) | Event::SettleTimeout | Event::Admitted(_) => None,
        };
        let before = self.birth.record().clone();
        let outgoing = self.birth.handle(event).await?;
        self.on_record_changed(&before);
        let mut replies = Vec::new();
        for Outgoing { to, message } in outgoing {
            self.birth.hit_fail_point(&message, "before");
            if Some(to) == asker {
                replies.push(message);
            } else {
                self.send(to, message);
            }
        }
        Ok(replies)
    }

    /// Reacts to a changed record.
    pub(super) fn on_record_changed(&mut self, before: &BirthRecord) {
        let record = self.birth.record();
        if record == before {
            return;
        }
        let now = clock();
        match &record.commitment {
            Commitment::Promised(_) => {
                self.settle_deadline = Some(now + settle_timeout(self.abandoned_births));
            }
            Commitment::None => {
                info!(epoch = record.epoch, "birth abandoned");
                self.settle_deadline = None;
                self.abandoned_births = self.abandoned_births.saturating_add(1);
                self.planner.start_epoch(record.epoch, random_up_to(MAX_PAUSE), now);
            }
            Commitment::Born(_) | Commitment::Joined(_) => self.settle_deadline = None,
        }
        self.publish();
    }

    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        let mut addresses =
            self.planner.peer(&to).map_or_else(Vec::new, |peer| peer.candidate.addresses.clone());
        let proposal = match (&self.birth.record().commitment, &message) {
            (Commitment::Promised(promise), _) => Some(&promise.proposal),
            (Commitment::Born(certificate), _) | (_, Message::Born(certificate)) => {
                Some(certificate.proposal())
            }
            (Commitment::None | Commitment::Joined(_), _) => None,
        };
        if let Some(founder) = proposal.and_then(|proposal| proposal.founder(&to)) {
            addresses.extend(&founder.addresses);
        }
        let route = jobs::Route { to, session: self.session(&to), addresses };
        self.jobs.spawn(jobs::deliver(Arc::clone(&self.network), route, message));
    }

    /// Handles a reply to this node's own message.
    pub(super) async fn on_reply(
        &mut self,
        key: &PublicKey,
        message: hello::BirthMessage,
    ) -> Result<(), FormationError> {
        let from = identity::node_id(key);
        match from_wire(key, message) {
            Ok(Message::Refuse { proposal, reason }) => {
                info!(founder = from.short(), %reason, "founder refused the proposal");
                let message = Message::Refuse { proposal, reason };
                self.on_message(from, message).await
            }
            Ok(message) => self.on_message(from, message).await,
            Err(error) => {
                warn!(peer = from.short(), %error, "invalid birth message from a peer");
                Ok(())
            }
        }
    }

    pub(super) async fn on_message(
        &mut self,
        from: NodeId,
        message: Message,
    ) -> Result<(), FormationError> {
        let answers = self.handle(Event::Received { from, message }).await?;
        for message in answers {
            self.send(from, message);
        }
        Ok(())
    }

    /// Rejects a proposal while this node sees an existing cluster or a duplicate identity.
    pub(super) fn refuse_proposal(&self, message: &Message, now: Instant) -> Option<Message> {
        let Message::Propose(proposal) = message else { return None };
        if !self.birth.record().is_uncommitted() {
            return None;
        }
        if let Some(duplicate) = self.planner.duplicate_identity(now) {
            let reason = format!("this node waits for {duplicate}");
            return Some(Message::Refuse { proposal: proposal.id(), reason });
        }
        let (_, living) = self.planner.cluster_members(proposal.cluster_id(), now);
        let peer = self.planner.peer(living.first()?)?;
        let reason = format!("{} belongs to a cluster for this token", peer.candidate.name);
        Some(Message::Refuse { proposal: proposal.id(), reason })
    }
}
