//! The birth in the midst of everything else: what it is told, and what it has others told.

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

/// How long a promise may stay unsettled before this node asks the other founders, and as much
/// again at random, so that they do not all ask at once.
const PATIENCE: Duration = Duration::from_millis(1500);

/// The same for a promise that was found in the store at the start.
const RESTARTED: Duration = Duration::from_millis(300);

/// The longest random pause after an abandoned birth.
const PAUSE: Duration = Duration::from_millis(400);

/// Doubles with the first three setbacks.
fn patience(setbacks: u32) -> Duration {
    let most = PATIENCE * (1 << setbacks.min(3));
    most + up_to(most)
}

/// How long a promise from before the start waits.
pub(super) fn at_restart() -> Duration {
    RESTARTED + up_to(RESTARTED)
}

impl<N: Network> Room<N> {
    /// While a promise is not settled.
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
            // A founder that knows is there to be asked.
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

    /// Lets the birth take an event and sends what follows; returns the replies to `Received`'s
    /// sender instead of sending them.
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

    /// Draws the consequences of a changed record.
    pub(super) fn noticed(&mut self, before: &Record) {
        let record = self.birth.record();
        if record == before {
            return;
        }
        let now = clock();
        match &record.bond {
            Bond::Promised(_) => self.patience = Some(now + patience(self.setbacks)),
            Bond::Free => {
                info!(turn = record.turn, "a birth was abandoned");
                self.patience = None;
                self.setbacks = self.setbacks.saturating_add(1);
                self.view.start_over(record.turn, up_to(PAUSE), now);
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

    /// Takes a reply to a message of this node's own.
    pub(super) async fn heard(
        &mut self,
        key: &PublicKey,
        message: hello::BirthMessage,
    ) -> Result<(), FormationError> {
        let from = identity::node_id(key);
        match from_wire(key, message) {
            Ok(Message::Refuse { proposal, reason }) => {
                info!(founder = from.short(), %reason, "a founder refused the birth");
                let message = Message::Refuse { proposal, reason };
                self.received(from, message).await
            }
            Ok(message) => self.received(from, message).await,
            Err(error) => {
                warn!(peer = from.short(), %error, "a peer's birth message was refused");
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

    /// A node that sees a living cluster, or two machines with one identity, signs nothing.
    pub(super) fn reluctance(&self, message: &Message, now: Instant) -> Option<Message> {
        let Message::Propose(proposal) = message else { return None };
        if !self.birth.record().is_free() {
            return None;
        }
        if let Some(twins) = self.view.twins(now) {
            let reason = format!("it waits for {twins}");
            return Some(Message::Refuse { proposal: proposal.id(), reason });
        }
        let (_, living) = self.view.living(proposal.cluster_id(), now);
        let peer = self.view.peer(living.first()?)?;
        let reason = format!("{} belongs to a cluster for this token", peer.candidate.name);
        Some(Message::Refuse { proposal: proposal.id(), reason })
    }
}
