//! The one task of formation: takes what happens, asks the view and the birth what follows, and
//! sends others out to do it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_pki::identity;
use muster_proto::wire::hello::refusal::Reason;
use muster_proto::wire::hello::{
    self, Admitted, GreetReply, GreetRequest, Hint, JoinReply, JoinRequest, join_reply::Outcome,
};
use muster_proto::{ClusterId, NodeId, PublicKey};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::network::{Network, Session as _};
use super::view::{Candidate, Decision, Standing, View};
use super::{FormationError, Formed, Request, jobs, wire};
use crate::birth::run::{Driver, Outgoing};
use crate::birth::step::Event;
use crate::birth::wire::from_wire;
use crate::birth::{Bond, Draft, Founder, Message, Proposal, Record};
use jobs::{Answer, Done};

/// How long a promise may stay unsettled before this node asks the other founders, and as much
/// again at random, so that they do not all ask at once.
const PATIENCE: Duration = Duration::from_millis(1500);

/// The same for a promise that was found in the store at the start.
const RESTARTED: Duration = Duration::from_millis(300);

/// The longest random pause after an abandoned birth.
const PAUSE: Duration = Duration::from_millis(400);

/// Between requests to be admitted: first, at most, and when only an operator can help.
const JOIN_AGAIN: Duration = Duration::from_millis(250);
const JOIN_AGAIN_MAX: Duration = Duration::from_secs(5);
const JOIN_REFUSED: Duration = Duration::from_secs(10);

/// When nothing else is to be waited for.
const IDLE: Duration = Duration::from_secs(1);

/// What the task listens to.
pub(super) struct Ears {
    pub(super) inbox: mpsc::Receiver<Request>,
    pub(super) hints: watch::Receiver<Arc<BTreeSet<SocketAddr>>>,
}

/// Requests to be admitted.
struct Joining {
    is_busy: bool,
    next: Instant,
    pause: Duration,
    /// Why the last one failed.
    refused: Option<String>,
    /// How many were made; picks the member to ask.
    count: usize,
}

/// Formation's task; see [`Room::run`].
pub struct Room<N: Network> {
    view: View,
    birth: Driver,
    network: Arc<N>,
    ears: Ears,
    sessions: BTreeMap<NodeId, Arc<N::Session>>,
    jobs: JoinSet<Done<N::Session>>,
    /// When the promised proposal has waited too long.
    patience: Option<Instant>,
    joining: Joining,
    waiting_for: String,
    pub(super) candidate: watch::Sender<hello::Candidate>,
    pub(super) formed: watch::Sender<Option<Formed>>,
}

impl<N: Network> std::fmt::Debug for Room<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").field("view", &self.view).finish_non_exhaustive()
    }
}

fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A random duration up to `most`.
fn up_to(most: Duration) -> Duration {
    most.mul_f64(rand::random_range(0.0..=1.0))
}

impl<N: Network> Room<N> {
    pub(super) fn new(view: View, birth: Driver, network: N, ears: Ears) -> Self {
        let now = clock();
        let waiting_for = "the first look around".to_owned();
        let candidate = view.own().candidate.to_wire(waiting_for.clone());
        let patience = birth.record().promise().map(|_| now + RESTARTED + up_to(RESTARTED));
        let joining =
            Joining { is_busy: false, next: now, pause: JOIN_AGAIN, refused: None, count: 0 };
        let mut room = Self {
            view,
            birth,
            network: Arc::new(network),
            ears,
            sessions: BTreeMap::new(),
            jobs: JoinSet::new(),
            patience,
            joining,
            waiting_for,
            candidate: watch::Sender::new(candidate),
            formed: watch::Sender::new(None),
        };
        let turn = room.birth.record().turn;
        room.view.start_over(turn, Duration::ZERO, now);
        room.publish();
        room
    }

    /// Runs until `stop`: first until this node belongs to a cluster, then only to answer late
    /// questions about its birth.
    ///
    /// # Errors
    /// When a promise could not be kept on disk. The node must stop.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), FormationError> {
        loop {
            self.act().await?;
            let wake = self.wake().into();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = self.jobs.join_next() => match done {
                    Ok(done) => self.done(done).await?,
                    Err(error) if error.is_panic() => {
                        std::panic::resume_unwind(error.into_panic());
                    }
                    Err(_) => {}
                },
                Some(request) = self.ears.inbox.recv() => self.answer(request).await?,
                Ok(()) = self.ears.hints.changed() => {}
                () = sleep_until(wake) => {}
            }
        }
        self.jobs.shutdown().await;
        Ok(())
    }

    fn is_formed(&self) -> bool {
        self.formed.borrow().is_some()
    }

    fn wake(&self) -> Instant {
        let now = clock();
        let idle = now + IDLE;
        if self.is_formed() {
            return idle;
        }
        let waits = [self.patience, self.view.next_due(), self.view.next_decision(now)];
        let joining = (!self.joining.is_busy).then_some(self.joining.next).filter(|at| *at > now);
        waits.into_iter().flatten().chain(joining).min().unwrap_or(idle).min(idle)
    }

    /// Does what is to be done now.
    async fn act(&mut self) -> Result<(), FormationError> {
        if self.is_formed() {
            return Ok(());
        }
        let now = clock();
        let hints = Arc::clone(&self.ears.hints.borrow_and_update());
        self.view.hinted(&hints, now);
        for address in self.view.due(now) {
            let session = self.view.owner(&address).and_then(|owner| self.session(&owner));
            let request = self.greeting(now);
            let network = Arc::clone(&self.network);
            self.jobs.spawn(jobs::greet(network, address, session, request));
        }
        if self.birth.record().promise().is_some() {
            self.hold(now).await?;
        } else {
            self.decide(now).await?;
        }
        self.publish();
        Ok(())
    }

    /// While a promise is not settled.
    async fn hold(&mut self, now: Instant) -> Result<(), FormationError> {
        let record = self.birth.record();
        let Some(promise) = record.promise() else { return Ok(()) };
        let names: Vec<_> =
            promise.proposal.founders().iter().map(|founder| founder.name.to_string()).collect();
        self.waiting_for = format!(
            "{} to settle the birth of cluster {}",
            names.join(", "),
            promise.proposal.cluster_id().short()
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
        let patience = *self.patience.get_or_insert(now + PATIENCE + up_to(PATIENCE));
        if now >= patience {
            self.patience = Some(now + PATIENCE + up_to(PATIENCE));
            self.take(Event::Impatient).await?;
        }
        Ok(())
    }

    /// While nothing is promised.
    async fn decide(&mut self, now: Instant) -> Result<(), FormationError> {
        if let Bond::Born(certificate) = &self.birth.record().bond {
            info!(cluster = %certificate.cluster_id(), "born");
            self.formed.send_replace(Some(Formed::Born(Arc::clone(certificate))));
            return Ok(());
        }
        match self.view.decide(self.birth.record(), now) {
            Decision::Wait { reason, .. } => self.waiting_for = reason,
            Decision::Join(members) => self.join(&members, now),
            Decision::Propose(founders) => {
                self.waiting_for = String::from("the founders to sign the birth certificate");
                if let Some(proposal) = self.draft(founders) {
                    self.take(Event::Propose(Arc::new(proposal))).await?;
                }
            }
        }
        Ok(())
    }

    fn draft(&mut self, founders: Vec<Founder>) -> Option<Proposal> {
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
    async fn take(&mut self, event: Event) -> Result<Vec<Message>, FormationError> {
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
    fn noticed(&mut self, before: &Record) {
        let record = self.birth.record();
        if record == before {
            return;
        }
        let now = clock();
        match &record.bond {
            Bond::Promised(_) => self.patience = Some(now + PATIENCE + up_to(PATIENCE)),
            Bond::Free => {
                info!(turn = record.turn, "a birth was abandoned");
                self.patience = None;
                self.view.start_over(record.turn, up_to(PAUSE), now);
            }
            Bond::Born(_) | Bond::Joined(_) => self.patience = None,
        }
        self.publish();
    }

    fn send(&mut self, to: NodeId, message: Message) {
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

    fn join(&mut self, members: &[NodeId], now: Instant) {
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

    fn session(&self, id: &NodeId) -> Option<Arc<N::Session>> {
        self.sessions.get(id).filter(|session| !session.is_closed()).map(Arc::clone)
    }

    /// Takes what a job brought back.
    async fn done(&mut self, done: Done<N::Session>) -> Result<(), FormationError> {
        let now = clock();
        if let Some(session) = &done.session {
            let id = identity::node_id(&session.peer());
            self.sessions.insert(id, Arc::clone(session));
        } else if let Some(id) = done.lost {
            self.sessions.remove(&id);
        }
        match done.answer {
            Answer::Greeted { address, reply: Err(why) } => {
                self.view.failed(address, why.to_string(), now);
            }
            Answer::Greeted { address, reply: Ok((key, reply)) } => {
                match Candidate::from_wire(key, reply.me) {
                    Ok(candidate) => self.view.met(candidate, Some(address), now),
                    Err(error) => self.view.failed(address, format!("{address}: {error}"), now),
                }
                self.view.relayed(&wire::hinted(&reply.peers), now);
            }
            Answer::Replied { from, message, replies } => {
                self.birth.pass(&message, "after");
                for reply in replies {
                    self.heard(&from, reply).await?;
                }
            }
            Answer::Undelivered => {}
            Answer::Join(reply) => self.join_answered(reply, now).await?,
        }
        Ok(())
    }

    /// Takes a reply to a message of this node's own.
    async fn heard(
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

    async fn received(&mut self, from: NodeId, message: Message) -> Result<(), FormationError> {
        let answers = self.take(Event::Received { from, message }).await?;
        for message in answers {
            self.send(from, message);
        }
        Ok(())
    }

    async fn join_answered(
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
                joining.refused = Some(refusal.message.chars().take(512).collect());
            }
            Ok(Some(Outcome::Redirect(redirect))) => {
                joining.next = now + JOIN_AGAIN;
                self.view.relayed(&wire::hinted(&redirect.peers), now);
            }
            Ok(Some(Outcome::Admitted(admitted))) => self.admitted(admitted).await?,
        }
        Ok(())
    }

    async fn admitted(&mut self, admitted: Admitted) -> Result<(), FormationError> {
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

    /// Answers a peer.
    async fn answer(&mut self, request: Request) -> Result<(), FormationError> {
        let now = clock();
        match request {
            Request::Greet { candidate, hints, reply } => {
                if !self.is_formed() {
                    self.view.met(candidate, None, now);
                    self.view.relayed(&hints, now);
                }
                let GreetRequest { me, peers } = self.greeting(now);
                // The peer may have gone.
                reply.send(GreetReply { me, peers }).ok();
            }
            Request::Birth { from, message, reply } => {
                let replies = if let Some(refusal) = self.reluctance(&message, now) {
                    vec![refusal]
                } else {
                    let from = identity::node_id(&from);
                    self.take(Event::Received { from, message }).await?
                };
                reply.send(replies).ok();
            }
        }
        Ok(())
    }

    /// A node that sees a living cluster signs nothing.
    fn reluctance(&self, message: &Message, now: Instant) -> Option<Message> {
        let Message::Propose(proposal) = message else { return None };
        if !self.birth.record().is_free() {
            return None;
        }
        let (_, living) = self.view.living(proposal.cluster_id(), now);
        let peer = self.view.peer(living.first()?)?;
        let reason = format!("{} belongs to a cluster for this token", peer.candidate.name);
        Some(Message::Refuse { proposal: proposal.id(), reason })
    }

    fn greeting(&self, now: Instant) -> GreetRequest {
        let hint = |(id, candidate, reachable): (&NodeId, &Candidate, bool)| Hint {
            node_id: id.to_vec(),
            addresses: candidate.addresses.iter().map(ToString::to_string).collect(),
            reachable,
        };
        let peers = self.view.worth_telling(now).take(wire::MAX_HINTS).map(hint).collect();
        GreetRequest { me: Some(self.candidate.borrow().clone()), peers }
    }

    /// Tells what this node is now.
    fn publish(&mut self) {
        let record = self.birth.record();
        let standing = match &record.bond {
            Bond::Free => Standing::Fresh,
            Bond::Promised(_) => Standing::Bound,
            Bond::Born(certificate) => Standing::Member(certificate.cluster_id()),
            // Its cluster is yet to say so again.
            Bond::Joined(_) if !self.is_formed() => Standing::Bound,
            Bond::Joined(cluster) => Standing::Member(*cluster),
        };
        let own = Candidate { standing, turn: record.turn, ..self.view.own().candidate.clone() };
        let waiting_for = if self.is_formed() {
            String::new()
        } else {
            self.waiting_for.chars().take(1000).collect()
        };
        let wire = own.to_wire(waiting_for);
        self.candidate.send_if_modified(|old| {
            let differs = *old != wire;
            *old = wire;
            differs
        });
    }
}
