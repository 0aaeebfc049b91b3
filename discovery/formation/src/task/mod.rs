//! The task of formation: receives events, lets the peer table and the birth protocol decide, and
//! spawns network jobs.

mod birth;
mod join;
mod join_retry;
mod timing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_messages::hello::{self, GreetReply, GreetRequest, Hint};
use muster_pki::identity;
use muster_types::NodeId;
use muster_types::limits::MAX_HINTS;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::candidate::{self, Candidate, CandidateState};
use super::network::{Network, Session as _};
use super::planner::{Action, FormationPlanner};
use super::{FormationError, Formed, Request, jobs};
use crate::birth::Commitment;
use crate::birth::driver::BirthDriver;
use crate::birth::step::Event;
use jobs::{JobOutcome, JobResult};
use join_retry::JoinRetry;
use timing::{clock, restart_settle_timeout};

/// Wake-up interval when nothing else is pending.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// Inputs of the task.
pub(super) struct Inputs {
    pub(super) inbox: mpsc::Receiver<Request>,
    pub(super) hints: watch::Receiver<Arc<BTreeSet<SocketAddr>>>,
    /// This node's own addresses.
    pub(super) addresses: watch::Receiver<Vec<SocketAddr>>,
}

/// Task of formation; see [`FormationTask::run`].
pub struct FormationTask<N: Network> {
    planner: FormationPlanner,
    birth: BirthDriver,
    network: Arc<N>,
    inputs: Inputs,
    sessions: BTreeMap<NodeId, Arc<N::Session>>,
    jobs: JoinSet<JobResult<N::Session>>,
    /// Deadline for settling the promised proposal.
    settle_deadline: Option<Instant>,
    /// Number of abandoned births. Each increases the timeout, so that births on slow disks and
    /// networks are not abandoned repeatedly.
    abandoned_births: u32,
    joining: JoinRetry,
    waiting_for: String,
    pub(super) candidate: watch::Sender<hello::Candidate>,
    pub(super) formed: watch::Sender<Option<Formed>>,
}

impl<N: Network> std::fmt::Debug for FormationTask<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FormationTask").field("planner", &self.planner).finish_non_exhaustive()
    }
}

impl<N: Network> FormationTask<N> {
    pub(super) fn new(
        planner: FormationPlanner,
        driver: BirthDriver,
        network: N,
        inputs: Inputs,
    ) -> Self {
        let now = clock();
        let waiting_for = "the first round of discovery".to_owned();
        let candidate = planner.own().candidate.to_wire(waiting_for.clone());
        let settle_deadline = driver.record().promise().map(|_| now + restart_settle_timeout());
        let mut task = Self {
            planner,
            birth: driver,
            network: Arc::new(network),
            inputs,
            sessions: BTreeMap::new(),
            jobs: JoinSet::new(),
            settle_deadline,
            abandoned_births: 0,
            joining: JoinRetry::new(now),
            waiting_for,
            candidate: watch::Sender::new(candidate),
            formed: watch::Sender::new(None),
        };
        let epoch = task.birth.record().epoch;
        task.planner.start_epoch(epoch, Duration::ZERO, now);
        task.publish();
        task
    }

    /// Runs until `stop`. Once this node belongs to a cluster, only answers late messages about its
    /// birth.
    ///
    /// # Errors
    /// When a promise could not be written to disk. The node must stop.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), FormationError> {
        loop {
            self.run_due().await?;
            let wake = self.next_wake().into();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = self.jobs.join_next() => match done {
                    Ok(done) => self.on_job_done(done).await?,
                    Err(error) if error.is_panic() => {
                        std::panic::resume_unwind(error.into_panic());
                    }
                    Err(_) => {}
                },
                Some(request) = self.inputs.inbox.recv() => self.on_request(request).await?,
                Ok(()) = self.inputs.hints.changed() => {}
                Ok(()) = self.inputs.addresses.changed() => self.on_address_change(),
                () = sleep_until(wake) => {}
            }
        }
        self.jobs.shutdown().await;
        Ok(())
    }

    fn is_formed(&self) -> bool {
        self.formed.borrow().is_some()
    }

    fn next_wake(&self) -> Instant {
        let now = clock();
        let idle = now + IDLE_INTERVAL;
        if self.is_formed() {
            return idle;
        }
        let waits =
            [self.settle_deadline, self.planner.next_due(), self.planner.next_decision(now)];
        let joining = (!self.joining.is_busy).then_some(self.joining.next).filter(|at| *at > now);
        waits.into_iter().flatten().chain(joining).min().unwrap_or(idle).min(idle)
    }

    /// Performs everything that is due now.
    async fn run_due(&mut self) -> Result<(), FormationError> {
        if self.is_formed() {
            return Ok(());
        }
        let now = clock();
        let hints = Arc::clone(&self.inputs.hints.borrow_and_update());
        self.planner.on_hints(&hints, now);
        for address in self.planner.take_due(now) {
            let session = self.planner.node_at(&address).and_then(|node| self.session(&node));
            let request = self.greeting(now);
            let network = Arc::clone(&self.network);
            self.jobs.spawn(jobs::greet(network, address, session, request));
        }
        if self.birth.record().promise().is_some() {
            self.await_settlement(now).await?;
        } else {
            self.decide(now).await?;
        }
        self.publish();
        Ok(())
    }

    /// Decides on the next step while nothing is promised.
    async fn decide(&mut self, now: Instant) -> Result<(), FormationError> {
        if let Commitment::Born(certificate) = &self.birth.record().commitment {
            info!(cluster = %certificate.cluster_id(), "born");
            self.formed.send_replace(Some(Formed::Born(Arc::clone(certificate))));
            return Ok(());
        }
        match self.planner.decide(self.birth.record(), now) {
            Action::Wait { reason, .. } => self.waiting_for = reason,
            Action::Join(members) => self.request_admission(&members, now),
            Action::Propose(founders) => {
                self.waiting_for = String::from("the founders to sign the birth certificate");
                if let Some(proposal) = self.draft(founders) {
                    self.handle(Event::Propose(Arc::new(proposal))).await?;
                }
            }
        }
        Ok(())
    }

    /// Announces and proposes this node's current addresses, not those from its start.
    fn on_address_change(&mut self) {
        let addresses = self.inputs.addresses.borrow_and_update().clone();
        self.planner.on_address_change(addresses);
        self.publish();
    }

    fn session(&self, id: &NodeId) -> Option<Arc<N::Session>> {
        self.sessions.get(id).filter(|session| !session.is_closed()).map(Arc::clone)
    }

    /// Handles the result of a job.
    async fn on_job_done(&mut self, done: JobResult<N::Session>) -> Result<(), FormationError> {
        let now = clock();
        if let Some(session) = &done.session {
            let id = identity::node_id(&session.peer());
            self.sessions.insert(id, Arc::clone(session));
        } else if let Some(id) = done.failed_peer {
            self.sessions.remove(&id);
        }
        match done.answer {
            JobOutcome::Greeted { address, reply: Err(why) } => {
                self.planner.on_dial_failed(address, why.to_string(), now);
            }
            JobOutcome::Greeted { address, reply: Ok((key, reply)) } => {
                match Candidate::from_wire(key, reply.candidate) {
                    Ok(candidate) => self.planner.on_peer(candidate, Some(address), now),
                    Err(error) => {
                        self.planner.on_dial_failed(address, format!("{address}: {error}"), now);
                    }
                }
                self.planner.on_peer_hints(&candidate::hint_addresses(&reply.peers), now);
            }
            JobOutcome::Replied { from, message, replies } => {
                self.birth.hit_fail_point(&message, "after");
                for reply in replies {
                    self.on_reply(&from, reply).await?;
                }
            }
            JobOutcome::Undelivered => {}
            JobOutcome::Join(reply) => self.on_join_reply(reply, now).await?,
        }
        Ok(())
    }

    /// Answers a peer's request.
    async fn on_request(&mut self, request: Request) -> Result<(), FormationError> {
        let now = clock();
        match request {
            Request::Greet { candidate, hints, reply } => {
                if !self.is_formed() {
                    self.planner.on_peer(candidate, None, now);
                    self.planner.on_peer_hints(&hints, now);
                }
                let GreetRequest { candidate: me, peers } = self.greeting(now);
                // The peer may have disconnected.
                reply.send(GreetReply { candidate: me, peers }).ok();
            }
            Request::Birth { from, message, reply } => {
                let replies = if let Some(refusal) = self.refuse_proposal(&message, now) {
                    vec![refusal]
                } else {
                    let from = identity::node_id(&from);
                    self.handle(Event::Received { from, message }).await?
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
        let peers = self.planner.announced_peers(now).take(MAX_HINTS).map(hint).collect();
        GreetRequest { candidate: Some(self.candidate.borrow().clone()), peers }
    }

    /// Publishes this node's current description.
    fn publish(&mut self) {
        let record = self.birth.record();
        let state = match &record.commitment {
            Commitment::None => CandidateState::Fresh,
            Commitment::Promised(_) => CandidateState::Bound,
            Commitment::Born(certificate) => CandidateState::Member(certificate.cluster_id()),
            // Its cluster has yet to admit it again.
            Commitment::Joined(_) if !self.is_formed() => CandidateState::Bound,
            Commitment::Joined(cluster) => CandidateState::Member(*cluster),
        };
        let own = Candidate { state, epoch: record.epoch, ..self.planner.own().candidate.clone() };
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
