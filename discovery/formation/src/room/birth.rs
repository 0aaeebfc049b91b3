//! Formation's side of the birth protocol: feeds events in and sends the messages out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_messages::hello;
use muster_pki::identity;
use muster_types::{NodeId, PublicKey};
use tracing::{info, warn};

use super::{Room, clock, up_to};
use crate::birth::run::Outgoing;
use crate::birth::step::Event;
use crate::birth::wire::from_wire;
use crate::birth::{Bond, Draft, Founder, Message, Proposal, Record};
use crate::network::Network;
use crate::{FormationError, jobs};

/// Timeout of an unsettled promise, after which this node inquires of the other founders. Up to
/// as much again is added at random, so that they do not all inquire at once.
const PATIENCE: Duration = Duration::from_millis(1500);

/// The same timeout for a promise found in the store at the start.
const RESTARTED: Duration = Duration::from_millis(300);

/// Maximum random pause after an abandoned birth.
const PAUSE: Duration = Duration::from_millis(400);

/// Timeout of a promise; doubles with each of the first three abandoned births.
fn patience(setbacks: u32) -> Duration {
    let most = PATIENCE * (1 << setbacks.min(3));
    most + up_to(most)
}

/// Timeout of a promise made before the start.
pub(super) fn at_restart() -> Duration {
    RESTARTED + up_to(RESTARTED)
}

impl<N: Network> Room<N> {
    /// Waits for the promised proposal to be settled, and inquires after a timeout.
    pub(super) async fn hold(&mut self, now: Instant) -> Result<(), FormationError> {
        let record = self.birth.record();
        let Some(promise) = record.promise() else { return Ok(()) };
        let names: Vec<_> =
            promise.proposal.founders().iter().map(|founder| founder.name.to_string()).collect();
        self.waiting_for = format!(
            "{} to settle the birth of cluster {}{}",
            names.join(", "),
            promise.proposal.cluster_id().short(),
            self.view.silent_places()
        );
        let own = promise.proposal.cluster_id();
        let (born, others) = self.view.living(own, now);
        if born {
            // A founder that knows the outcome is reachable.
            let soon = now + RESTARTED;
            self.patience = Some(self.patience.map_or(soon, |patience| patience.min(soon)));
        } else if !others.is_empty() {
            self.join(&others, now);
        }
        let deadline = *self.patience.get_or_insert(now + patience(self.setbacks));
        if now >= deadline {
            self.patience = Some(now + patience(self.setbacks));
            self.take(Event::Impatient).await?;
        }
        Ok(())
    }

    pub(super) fn draft(&mut self, founders: Vec<Founder>) -> Option<Proposal> {
        let charter = self.birth.charter();
        let draft = Draft {
            token_id: charter.token_id.clone(),
            founders,
            nonce: rand::random(),
            config_digest: charter.config_digest,
            proposer: charter.me,
        };
        let proposal = Proposal::new(draft);
        if let Err(error) = &proposal {
            self.waiting_for = error.to_string();
        }
        proposal.ok()
    }

    /// Handles one protocol event and sends the messages. Replies to the sender of `Received` are
    /// returned instead of sent.
    pub(super) async fn take(&mut self, event: Event) -> Result<Vec<Message>, FormationError> {
        let asker = match &event {
            Event::Received { from, .. } => Some(*from),
            Event::Propose(_) | Event::Impatient | Event::Admitted(_) => None,
        };
        let before = self.birth.record().clone();
        let outgoing = self.birth.take(event).await?;
        self.noticed(&before);
        let mut replies = Vec::new();
        for Outgoing { to, message } in outgoing {
            self.birth.pass(&message, "before");
            if Some(to) == asker {
                replies.push(message);
            } else {
                self.send(to, message);
            }
        }
        Ok(replies)
    }

    /// Reacts to a changed record.
    pub(super) fn noticed(&mut self, before: &Record) {
        let record = self.birth.record();
        if record == before {
            return;
        }
        let now = clock();
        match &record.bond {
            Bond::Promised(_) => self.patience = Some(now + patience(self.setbacks)),
            Bond::Free => {
                info!(epoch = record.epoch, "birth abandoned");
                self.patience = None;
                self.setbacks = self.setbacks.saturating_add(1);
                self.view.start_over(record.epoch, up_to(PAUSE), now);
            }
            Bond::Born(_) | Bond::Joined(_) => self.patience = None,
        }
        self.publish();
    }

    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        let mut addresses =
            self.view.peer(&to).map_or_else(Vec::new, |peer| peer.candidate.addresses.clone());
        let proposal = match (&self.birth.record().bond, &message) {
            (Bond::Promised(promise), _) => Some(&promise.proposal),
            (Bond::Born(certificate), _) | (_, Message::Born(certificate)) => {
                Some(certificate.proposal())
            }
            (Bond::Free | Bond::Joined(_), _) => None,
        };
        if let Some(founder) = proposal.and_then(|proposal| proposal.founder(&to)) {
            addresses.extend(&founder.addresses);
        }
        let route = jobs::Route { to, session: self.session(&to), addresses };
        self.jobs.spawn(jobs::deliver(Arc::clone(&self.network), route, message));
    }

    /// Handles a reply to this node's own message.
    pub(super) async fn heard(
        &mut self,
        key: &PublicKey,
        message: hello::BirthMessage,
    ) -> Result<(), FormationError> {
        let from = identity::node_id(key);
        match from_wire(key, message) {
            Ok(Message::Refuse { proposal, reason }) => {
                info!(founder = from.short(), %reason, "founder refused the proposal");
                let message = Message::Refuse { proposal, reason };
                self.received(from, message).await
            }
            Ok(message) => self.received(from, message).await,
            Err(error) => {
                warn!(peer = from.short(), %error, "invalid birth message from a peer");
                Ok(())
            }
        }
    }

    pub(super) async fn received(
        &mut self,
        from: NodeId,
        message: Message,
    ) -> Result<(), FormationError> {
        let answers = self.take(Event::Received { from, message }).await?;
        for message in answers {
            self.send(from, message);
        }
        Ok(())
    }

    /// Rejects a proposal while this node sees an existing cluster or a duplicate identity.
    pub(super) fn reluctance(&self, message: &Message, now: Instant) -> Option<Message> {
        let Message::Propose(proposal) = message else { return None };
        if !self.birth.record().is_free() {
            return None;
        }
        if let Some(twins) = self.view.twins(now) {
            let reason = format!("this node waits for {twins}");
            return Some(Message::Refuse { proposal: proposal.id(), reason });
        }
        let (_, living) = self.view.living(proposal.cluster_id(), now);
        let peer = self.view.peer(living.first()?)?;
        let reason = format!("{} belongs to a cluster for this token", peer.candidate.name);
        Some(Message::Refuse { proposal: proposal.id(), reason })
    }
}
