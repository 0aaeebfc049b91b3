//! The member runtime: waits until this node is a member, then runs a member's tasks until it stops
//! or is removed.

mod control_plane;
mod gossip;
mod worker;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use muster_formation::{self, Formed};
use muster_sources::Sources;
use muster_transport::endpoint::Endpoint;
use muster_types::{ClusterId, NodeId, Role};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use crate::api::node_status::NodeStatusProvider;
use crate::controllers::founding::Founding;
use crate::controllers::membership_check::MembershipCheck;
use crate::fatal::Fatal;
use crate::membership::Membership;
use crate::ports::OperatorPort;
use crate::prepare::Prepared;
use crate::raft;
use crate::status::{StatusReader, StatusWriter};
use crate::tasks::Tasks;
use crate::trust_store::TrustStore;

/// Inputs of the member runtime.
#[derive(Debug)]
pub struct MemberRuntime {
    /// The checked node.
    pub prepared: Prepared,
    /// QUIC endpoint.
    pub endpoint: Endpoint,
    /// TCP port for operators.
    pub operator_port: OperatorPort,
    /// Handle to the trust store.
    pub trust_store: TrustStore,
    /// Discovery sources.
    pub sources: Sources,
    /// Handle to formation. `None` on a node that joined in an earlier run.
    pub formation: Option<muster_formation::Formation>,
    /// Publishes the status of this node.
    pub status: StatusWriter,
    /// Status provider of this node.
    pub node_status: Arc<NodeStatusProvider>,
}

/// Delay before the next accept if the machine is out of file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(200);

/// Time limit for Raft to report its error after another task has ended.
const CAUSE_TIMEOUT: Duration = Duration::from_millis(500);

/// The way in which this node became a member.
enum JoinedAs {
    Founder(Box<Founder>),
    Joiner,
}

/// Data that only a founder has: the initial commands and the first voters.
struct Founder {
    founding: Founding,
    voters: BTreeSet<NodeId>,
}

impl MemberRuntime {
    /// Waits until this node is a member, then runs the member's tasks until `stop`.
    pub async fn run(self, fatal_sender: mpsc::Sender<Fatal>, stop: CancellationToken) {
        match stop.run_until_cancelled(self.wait_for_membership()).await {
            None => {}
            Some(Err(fatal)) => {
                fatal_sender.send(fatal).await.ok();
                stop.cancelled().await;
            }
            Some(Ok((joined_as, membership))) => {
                self.run_member(joined_as, membership, fatal_sender, stop).await;
            }
        }
    }

    /// Waits until this node belongs to a cluster. Returns how it got in, and its membership.
    async fn wait_for_membership(&self) -> Result<(JoinedAs, Membership), Fatal> {
        let Some(formation) = &self.formation else {
            let membership = self.prepared.membership.clone();
            let membership = membership.ok_or(Fatal::TaskExited("formation"))?;
            return Ok((JoinedAs::Joiner, membership));
        };
        let formed = self.wait_until_formed(formation).await;
        let prepared = &self.prepared;
        match formed {
            None => Err(Fatal::TaskExited("formation")),
            Some(Formed::Born(certificate)) => {
                let founders = certificate.founders().iter();
                let voters = founders.map(muster_formation::birth::Founder::id).collect();
                let founding = Founding::new(
                    &certificate,
                    &prepared.config,
                    &prepared.token.token,
                    prepared.digest,
                );
                let born = || Membership::from_birth(&certificate, &prepared.config.cluster.name);
                let known = prepared.membership.clone();
                let membership = known
                    .filter(|known| known.cluster_id == certificate.cluster_id())
                    .unwrap_or_else(born);
                Ok((JoinedAs::Founder(Box::new(Founder { founding, voters })), membership))
            }
            Some(Formed::Joined(answer)) => {
                let mut membership = Membership::from_admission(&answer, prepared.config.role)
                    .map_err(|error| Fatal::start("accept the admission", error))?;
                membership.token_id = Some(prepared.token.id.clone());
                Ok((JoinedAs::Joiner, membership))
            }
        }
    }

    /// Waits for the end of formation and publishes what it waits for. Meanwhile, closes operators'
    /// connections: only the hello protocol is served yet.
    async fn wait_until_formed(&self, formation: &muster_formation::Formation) -> Option<Formed> {
        let mut candidate = formation.candidate();
        let (formed, closing) = (formation.formed(), self.close_operators());
        tokio::pin!(formed, closing);
        loop {
            let words = candidate.borrow_and_update().waiting_for.clone();
            let waiting_for = Some(words).filter(|words| !words.is_empty());
            let waiting_for = waiting_for.map(|words| words + &self.failing_sources());
            let is_news = self.status.set_waiting_for(waiting_for.clone());
            if let Some(waiting_for) = waiting_for.filter(|_| is_news) {
                info!(waiting_for, "not a member yet");
            }
            tokio::select! {
                biased;
                formed = &mut formed => return formed,
                Ok(()) = candidate.changed() => {}
                () = &mut closing => {}
            }
        }
    }

    /// Closes operators' connections.
    async fn close_operators(&self) {
        let listener = self.operator_port.listener().await;
        loop {
            match listener.accept().await {
                Ok((connection, _)) => drop(connection),
                Err(error) => {
                    debug!(%error, "cannot accept a connection");
                    sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    /// Formats the errors of failing discovery sources, in brackets; empty if there are none.
    fn failing_sources(&self) -> String {
        let states = self.sources.state();
        let failing: Vec<_> =
            states.values().filter(|state| state.failing).map(ToString::to_string).collect();
        if failing.is_empty() { String::new() } else { format!(" ({})", failing.join("; ")) }
    }

    async fn run_member(
        self,
        joined_as: JoinedAs,
        membership: Membership,
        fatal_sender: mpsc::Sender<Fatal>,
        stop: CancellationToken,
    ) {
        info!(
            cluster = %membership.cluster_id.short(),
            name = membership.cluster_name,
            founder = matches!(joined_as, JoinedAs::Founder(_)),
            "this node belongs to a cluster"
        );
        if let Err(fatal) = self.claim_store(membership.cluster_id).await {
            fatal_sender.send(fatal).await.ok();
            stop.cancelled().await;
            return;
        }
        self.status.set_cluster(membership.cluster_id);
        self.trust_store.set_membership(membership.clone()).await;
        let mut trust = self.trust_store.trust();
        stop.run_until_cancelled(trust.wait_for(|trust| !trust.directory.is_empty())).await;
        self.status.set_member();

        let mut member_tasks = MemberTasks {
            tasks: Tasks::default(),
            stop: stop.child_token(),
            fatal_sender: fatal_sender.clone(),
            status: self.status.reader(),
        };
        let gossip = self.gossip(&mut member_tasks);
        self.watch_membership(&mut member_tasks);
        let started = match self.prepared.config.role {
            Role::ControlPlane => {
                self.control_plane(&mut member_tasks, joined_as, &membership, &gossip).await
            }
            Role::Worker => {
                self.worker(&mut member_tasks, &gossip);
                Ok(())
            }
        };
        if let Err(fatal) = started {
            fatal_sender.send(fatal).await.ok();
            member_tasks.stop.cancel();
        }
        member_tasks.run().await;
        stop.cancelled().await;
    }

    /// Creates Raft's store before the membership is on disk, so a membership without a store means
    /// that the store was lost. A voter with an empty store could vote twice in one term.
    async fn claim_store(&self, cluster: ClusterId) -> Result<(), Fatal> {
        if self.prepared.config.role == Role::Worker {
            return Ok(());
        }
        let known = self.prepared.membership.is_some();
        let claimed =
            raft::prepare_store(self.prepared.state.raft(), self.me(), cluster, known).await;
        claimed.map_err(|error| control_plane::raft_start_error(&error))
    }

    /// Starts the membership check, and stops the member's tasks once this node is known to be
    /// removed.
    fn watch_membership(&self, member_tasks: &mut MemberTasks) {
        let check = MembershipCheck {
            me: self.me(),
            role: self.prepared.config.role,
            endpoint: self.endpoint.clone(),
            trust: self.trust_store.trust(),
            status: self.status.clone(),
            trust_store: self.trust_store.clone(),
            hints: self.sources.hints(),
        };
        let stop = member_tasks.stop.clone();
        member_tasks.tasks.spawn("membership-check", async move {
            check.run(stop.clone()).await;
            stop.cancelled().await;
        });
        let (mut status, stop) = (self.status.reader(), member_tasks.stop.clone());
        member_tasks.tasks.spawn("removal", async move {
            if stop.run_until_cancelled(status.wait_for_removal()).await.is_some() {
                stop.cancel();
            }
        });
    }

    fn me(&self) -> NodeId {
        self.prepared.identity.node_id()
    }
}

/// Tasks that must stop when the node is removed.
#[derive(Debug)]
struct MemberTasks {
    tasks: Tasks,
    stop: CancellationToken,
    /// Receives errors that stop the whole node.
    fatal_sender: mpsc::Sender<Fatal>,
    status: StatusReader,
}

impl MemberTasks {
    /// Runs until `stop`. An unexpected task exit stops the node.
    async fn run(mut self) {
        let ended = tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            ended = self.tasks.next_exit() => ended,
        };
        if let Some((name, panicked)) = ended
            && !self.stop.is_cancelled()
        {
            error!(name, panicked, "task exited");
            let fatal = match self.store_error().await {
                Some(why) => Fatal::Store(why),
                None if panicked => Fatal::TaskPanicked(name),
                None => Fatal::TaskExited(name),
            };
            self.fatal_sender.send(fatal).await.ok();
            self.stop.cancel();
        }
        self.tasks.drain().await;
    }

    /// Returns the error that stopped Raft, if any. Tasks that depend on Raft end with it, and the
    /// first one that is noticed must not hide the cause.
    async fn store_error(&self) -> Option<String> {
        let group = self.status.group()?;
        let mut metrics = group.metrics();
        let failed = metrics.wait_for(|metrics| metrics.running_state.is_err());
        let metrics = timeout(CAUSE_TIMEOUT, failed).await.ok()?.ok()?;
        metrics.running_state.as_ref().err().map(ToString::to_string)
    }
}
