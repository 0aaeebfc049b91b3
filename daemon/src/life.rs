//! The member runtime: waits until this node is a member, then runs a member's tasks until it stops
//! or is removed.

mod control_plane;
mod liveness;
mod operators;
mod worker;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_formation::{self, Formed};
use muster_sources::Sources;
use muster_transport::endpoint::Endpoint;
use muster_types::{ClusterId, NodeId, Role};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::api::local::{EtcdView, Local};
use crate::compose::Tasks;
use crate::controllers::founding::Founding;
use crate::controllers::standing::Standing;
use crate::controllers::view::Told;
use crate::fatal::Fatal;
use crate::keeper::Keeper;
use crate::membership::Membership;
use crate::prepare::Prepared;
use crate::raft::{self, Group};

/// Status channels that the node's tasks write and its APIs read.
#[derive(Debug)]
pub struct Publish {
    /// The condition that formation waits for. `None` once the node belongs to a cluster.
    pub forming: watch::Sender<Option<String>>,
    /// True once this node was removed from its cluster.
    pub removed: watch::Sender<bool>,
    /// The cluster that this node belongs to.
    pub cluster: watch::Sender<Option<ClusterId>>,
    /// On a worker: true while a control-plane node answers.
    pub in_touch: watch::Sender<bool>,
    /// Handle to the Raft group. `None` on a worker, and before Raft has started.
    pub group: watch::Sender<Option<Group>>,
    /// Status of this node's etcd.
    pub etcd: watch::Sender<EtcdView>,
    /// On a worker: the last cluster view that it received.
    pub told: watch::Sender<Told>,
}

/// Inputs of the member runtime.
#[derive(Debug)]
pub struct Life {
    /// The checked node.
    pub prepared: Prepared,
    /// QUIC endpoint.
    pub endpoint: Endpoint,
    /// TCP port for operators.
    pub listener: TcpListener,
    /// Handle to the trust store.
    pub keeper: Keeper,
    /// Discovery sources.
    pub sources: Sources,
    /// Handle to formation. `None` on a node that joined in an earlier run.
    pub formation: Option<muster_formation::Formation>,
    /// Addresses at which other nodes reach this one.
    pub own: watch::Receiver<Vec<SocketAddr>>,
    /// Status channels.
    pub publish: Publish,
    /// Status provider of this node.
    pub local: Arc<Local>,
}

/// Time limit for Raft to report its error after another task has ended.
const CAUSE: Duration = Duration::from_millis(500);

/// The way in which this node became a member.
enum Origin {
    Founder(Box<Founder>),
    Joined,
}

/// Data that only a founder has: the initial commands and the first voters.
struct Founder {
    founding: Founding,
    voters: BTreeSet<NodeId>,
}

impl Life {
    /// Waits until this node is a member, then runs the member's tasks until `stop`.
    pub async fn run(self, ends: mpsc::Sender<Fatal>, stop: CancellationToken) {
        match stop.run_until_cancelled(self.enter()).await {
            None => {}
            Some(Err(fatal)) => {
                ends.send(fatal).await.ok();
                stop.cancelled().await;
            }
            Some(Ok((origin, membership))) => self.live(origin, membership, ends, stop).await,
        }
    }

    /// Waits until this node belongs to a cluster. Returns how it got in, and its membership.
    async fn enter(&self) -> Result<(Origin, Membership), Fatal> {
        let Some(formation) = &self.formation else {
            let membership = self.prepared.membership.clone();
            let membership = membership.ok_or(Fatal::TaskEnded("formation"))?;
            return Ok((Origin::Joined, membership));
        };
        let formed = self.formed(formation).await;
        let prepared = &self.prepared;
        match formed {
            None => Err(Fatal::TaskEnded("formation")),
            Some(Formed::Born(certificate)) => {
                let founders = certificate.founders().iter();
                let voters = founders.map(muster_formation::birth::Founder::id).collect();
                let founding =
                    Founding::new(&certificate, &prepared.config, &prepared.token, prepared.digest);
                let born = || Membership::born(&certificate, &prepared.config.cluster.name);
                let known = prepared.membership.clone();
                let membership = known
                    .filter(|known| known.cluster_id == certificate.cluster_id())
                    .unwrap_or_else(born);
                Ok((Origin::Founder(Box::new(Founder { founding, voters })), membership))
            }
            Some(Formed::Joined(answer)) => {
                let membership = Membership::admitted(&answer, prepared.config.role)
                    .map_err(|error| Fatal::start("accept the admission", error))?;
                Ok((Origin::Joined, membership))
            }
        }
    }

    /// Waits for the end of formation and publishes what it waits for. Meanwhile, closes operators'
    /// connections: only the hello protocol is served yet.
    async fn formed(&self, formation: &muster_formation::Formation) -> Option<Formed> {
        let mut candidate = formation.candidate();
        let formed = formation.formed();
        tokio::pin!(formed);
        loop {
            let words = candidate.borrow_and_update().waiting_for.clone();
            let waiting_for = Some(words).filter(|words| !words.is_empty());
            let waiting_for = waiting_for.map(|words| words + &self.blind_sources());
            let is_news = self.publish.forming.send_if_modified(|known| {
                let differs = *known != waiting_for;
                known.clone_from(&waiting_for);
                differs
            });
            if let Some(waiting_for) = waiting_for.filter(|_| is_news) {
                info!(waiting_for, "not a member yet");
            }
            tokio::select! {
                biased;
                formed = &mut formed => return formed,
                Ok(()) = candidate.changed() => {}
                Ok((connection, _)) = self.listener.accept() => drop(connection),
            }
        }
    }

    /// Formats the errors of failing discovery sources, in brackets; empty if there are none.
    fn blind_sources(&self) -> String {
        let states = self.sources.state();
        let blind: Vec<_> =
            states.values().filter(|state| state.failing).map(ToString::to_string).collect();
        if blind.is_empty() { String::new() } else { format!(" ({})", blind.join("; ")) }
    }

    async fn live(
        self,
        origin: Origin,
        membership: Membership,
        ends: mpsc::Sender<Fatal>,
        stop: CancellationToken,
    ) {
        info!(
            cluster = %membership.cluster_id.short(),
            name = membership.cluster_name,
            founder = matches!(origin, Origin::Founder(_)),
            "this node belongs to a cluster"
        );
        if let Err(fatal) = self.claim_store(membership.cluster_id).await {
            ends.send(fatal).await.ok();
            stop.cancelled().await;
            return;
        }
        self.publish.cluster.send_replace(Some(membership.cluster_id));
        self.keeper.joined(membership.clone()).await;
        let mut trust = self.keeper.trust();
        stop.run_until_cancelled(trust.wait_for(|trust| !trust.directory.is_empty())).await;
        self.publish.forming.send_replace(None);

        let mut serving = Serving {
            tasks: Tasks::default(),
            stop: stop.child_token(),
            ends: ends.clone(),
            group: self.publish.group.subscribe(),
        };
        let gossip = self.gossip(&mut serving);
        self.watch_standing(&mut serving);
        let started = match self.prepared.config.role {
            Role::ControlPlane => {
                self.control_plane(&mut serving, origin, &membership, &gossip).await
            }
            Role::Worker => {
                self.worker(&mut serving, &gossip);
                Ok(())
            }
        };
        if let Err(fatal) = started {
            ends.send(fatal).await.ok();
            serving.stop.cancel();
        }
        serving.run().await;
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
        claimed.map_err(|error| control_plane::raft_failed(&error))
    }

    /// Starts the membership check, and stops the member's tasks once this node is known to be
    /// removed.
    fn watch_standing(&self, serving: &mut Serving) {
        let standing = Standing {
            me: self.me(),
            role: self.prepared.config.role,
            endpoint: self.endpoint.clone(),
            trust: self.keeper.trust(),
            group: self.publish.group.subscribe(),
            in_touch: self.publish.in_touch.subscribe(),
            keeper: self.keeper.clone(),
            hints: self.sources.hints(),
            removed: self.publish.removed.clone(),
        };
        let stop = serving.stop.clone();
        serving.tasks.spawn("standing", async move {
            standing.run(stop.clone()).await;
            stop.cancelled().await;
        });
        let (mut removed, stop) = (self.publish.removed.subscribe(), serving.stop.clone());
        serving.tasks.spawn("removal", async move {
            if stop.run_until_cancelled(removed.wait_for(|removed| *removed)).await.is_some() {
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
struct Serving {
    tasks: Tasks,
    stop: CancellationToken,
    /// Receives errors that stop the whole node.
    ends: mpsc::Sender<Fatal>,
    group: watch::Receiver<Option<Group>>,
}

impl Serving {
    /// Runs until `stop`. An unexpected task exit stops the node.
    async fn run(mut self) {
        let ended = tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            ended = self.tasks.ended() => ended,
        };
        if let Some((name, panicked)) = ended
            && !self.stop.is_cancelled()
        {
            error!(name, panicked, "task exited");
            let fatal = match self.store_failed().await {
                Some(why) => Fatal::Store(why),
                None if panicked => Fatal::Panicked(name),
                None => Fatal::TaskEnded(name),
            };
            self.ends.send(fatal).await.ok();
            self.stop.cancel();
        }
        self.tasks.drain().await;
    }

    /// Returns the error that stopped Raft, if any. Tasks that depend on Raft end with it, and the
    /// first one that is noticed must not hide the cause.
    async fn store_failed(&self) -> Option<String> {
        let group = self.group.borrow().clone()?;
        let mut metrics = group.metrics();
        let failed = metrics.wait_for(|metrics| metrics.running_state.is_err());
        let metrics = timeout(CAUSE, failed).await.ok()?.ok()?;
        metrics.running_state.as_ref().err().map(ToString::to_string)
    }
}
