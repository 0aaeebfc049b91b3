//! The task of formation: receives events, lets the peer table and the birth protocol decide, and
//! spawns network jobs.

mod birth;
mod joining;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_messages::hello::{self, GreetReply, GreetRequest, Hint};
use muster_pki::identity;
use muster_types::NodeId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::candidate::{self, Candidate, Standing};
use super::network::{Network, Session as _};
use super::view::{Decision, View};
use super::{FormationError, Formed, Request, jobs};
use crate::birth::Bond;
use crate::birth::run::Driver;
use crate::birth::step::Event;
use jobs::{Answer, Done};
use joining::Joining;

/// Wake-up interval when nothing else is pending.
const IDLE: Duration = Duration::from_secs(1);

/// Inputs of the task.
pub(super) struct Ears {
    pub(super) inbox: mpsc::Receiver<Request>,
    pub(super) hints: watch::Receiver<Arc<BTreeSet<SocketAddr>>>,
    /// This node's own addresses.
    pub(super) addresses: watch::Receiver<Vec<SocketAddr>>,
}

/// Task of formation; see [`Room::run`].
pub struct Room<N: Network> {
    view: View,
    birth: Driver,
    network: Arc<N>,
    ears: Ears,
    sessions: BTreeMap<NodeId, Arc<N::Session>>,
    jobs: JoinSet<Done<N::Session>>,
    /// Deadline for settling the promised proposal.
    patience: Option<Instant>,
    /// Number of abandoned births. Each increases the timeout, so that births on slow disks and
    /// networks are not abandoned repeatedly.
    setbacks: u32,
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

/// Returns a random duration up to `most`.
fn up_to(most: Duration) -> Duration {
    most.mul_f64(rand::random_range(0.0..=1.0))
}

impl<N: Network> Room<N> {
    pub(super) fn new(view: View, driver: Driver, network: N, ears: Ears) -> Self {
        let now = clock();
        let waiting_for = "the first round of discovery".to_owned();
        let candidate = view.own().candidate.to_wire(waiting_for.clone());
        let patience = driver.record().promise().map(|_| now + birth::at_restart());
        let mut room = Self {
            view,
            birth: driver,
            network: Arc::new(network),
            ears,
            sessions: BTreeMap::new(),
            jobs: JoinSet::new(),
            patience,
            setbacks: 0,
            joining: Joining::new(now),
            waiting_for,
            candidate: watch::Sender::new(candidate),
            formed: watch::Sender::new(None),
        };
        let epoch = room.birth.record().epoch;
        room.view.start_over(epoch, Duration::ZERO, now);
        room.publish();
        room
    }

    /// Runs until `stop`. Once this node belongs to a cluster, only answers late messages about its
    /// birth.
    ///
    /// # Errors
    /// When a promise could not be written to disk. The node must stop.
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
                Ok(()) = self.ears.addresses.changed() => self.follow_addresses(),
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

    /// Performs everything that is due now.
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

    /// Decides on the next step while nothing is promised.
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

    /// Announces and proposes this node's current addresses, not those from its start.
    fn follow_addresses(&mut self) {
        let addresses = self.ears.addresses.borrow_and_update().clone();
        self.view.moved(addresses);
        self.publish();
    }

    fn session(&self, id: &NodeId) -> Option<Arc<N::Session>> {
        self.sessions.get(id).filter(|session| !session.is_closed()).map(Arc::clone)
    }

    /// Handles the result of a job.
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
                match Candidate::from_wire(key, reply.candidate) {
                    Ok(candidate) => self.view.met(candidate, Some(address), now),
                    Err(error) => self.view.failed(address, format!("{address}: {error}"), now),
                }
                self.view.relayed(&candidate::hinted(&reply.peers), now);
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

    /// Answers a peer's request.
    async fn answer(&mut self, request: Request) -> Result<(), FormationError> {
        let now = clock();
        match request {
            Request::Greet { candidate, hints, reply } => {
                if !self.is_formed() {
                    self.view.met(candidate, None, now);
                    self.view.relayed(&hints, now);
                }
                let GreetRequest { candidate: me, peers } = self.greeting(now);
                // The peer may have disconnected.
                reply.send(GreetReply { candidate: me, peers }).ok();
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

    fn greeting(&self, now: Instant) -> GreetRequest {
        let hint = |(id, candidate, reachable): (&NodeId, &Candidate, bool)| Hint {
            node_id: id.to_vec(),
            addresses: candidate.addresses.iter().map(ToString::to_string).collect(),
            reachable,
        };
        let peers = self.view.worth_telling(now).take(candidate::MAX_HINTS).map(hint).collect();
        GreetRequest { candidate: Some(self.candidate.borrow().clone()), peers }
    }

    /// Publishes this node's current description.
    fn publish(&mut self) {
        let record = self.birth.record();
        let standing = match &record.bond {
            Bond::Free => Standing::Fresh,
            Bond::Promised(_) => Standing::Bound,
            Bond::Born(certificate) => Standing::Member(certificate.cluster_id()),
            // Its cluster has yet to admit it again.
            Bond::Joined(_) if !self.is_formed() => Standing::Bound,
            Bond::Joined(cluster) => Standing::Member(*cluster),
        };
        let own = Candidate { standing, epoch: record.epoch, ..self.view.own().candidate.clone() };
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
