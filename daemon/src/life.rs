//! A member's life: from the moment this node belongs to a cluster until it stops or is removed.

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

/// What the parts tell each other about this node.
#[derive(Debug)]
pub struct Publish {
    pub forming: watch::Sender<Option<String>>,
    pub removed: watch::Sender<bool>,
    /// The cluster that this node belongs to.
    pub cluster: watch::Sender<Option<ClusterId>>,
    pub in_touch: watch::Sender<bool>,
    pub group: watch::Sender<Option<Group>>,
    pub etcd: watch::Sender<EtcdView>,
    pub told: watch::Sender<Told>,
}

/// All that a member is made of.
#[derive(Debug)]
pub struct Life {
    pub prepared: Prepared,
    pub endpoint: Endpoint,
    pub listener: TcpListener,
    pub keeper: Keeper,
    pub sources: Sources,
    pub formation: Option<muster_formation::Handle>,
    pub own: watch::Receiver<Vec<SocketAddr>>,
    pub publish: Publish,
    pub local: Arc<Local>,
}

/// How long the cause may take to show after a part has ended.
const CAUSE: Duration = Duration::from_millis(500);

/// How this node came into its cluster.
enum Origin {
    Founder(Box<Founder>),
    Joined,
}

/// What only a founder knows: what the founding is, and who votes first.
struct Founder {
    founding: Founding,
    voters: BTreeSet<NodeId>,
}

impl Life {
    /// Waits for the cluster, then lives in it until `stop`.
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

    /// Waits until this node belongs to a cluster; what it then is, is on disk.
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
                    .map_err(|error| Fatal::start("take the admission", error))?;
                Ok((Origin::Joined, membership))
            }
        }
    }

    /// Waits for formation's end, says what it waits for, and closes what operators open: there is
    /// nobody to answer them yet but the hello protocol.
    async fn formed(&self, formation: &muster_formation::Handle) -> Option<Formed> {
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

    /// What the sources of candidates complain about, in brackets: why nobody may be found.
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

    /// Makes Raft's store before the membership is on disk: so a membership without a store is known
    /// to be a loss. A voter that began with an empty one would vote again in terms it has voted in.
    async fn claim_store(&self, cluster: ClusterId) -> Result<(), Fatal> {
        if self.prepared.config.role == Role::Worker {
            return Ok(());
        }
        let known = self.prepared.membership.is_some();
        let claimed = raft::claim(self.prepared.state.raft(), self.me(), cluster, known).await;
        claimed.map_err(|error| control_plane::raft_failed(&error))
    }

    /// Asks others whether this node still is a member when it is out of touch; once it is known to
    /// be removed, everything that only a member does ends.
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

/// Everything that a removed node must not do.
#[derive(Debug)]
struct Serving {
    tasks: Tasks,
    stop: CancellationToken,
    /// What ends the whole node.
    ends: mpsc::Sender<Fatal>,
    group: watch::Receiver<Option<Group>>,
}

impl Serving {
    /// Runs until told to stop, or until a task ends that should not have, which ends the node.
    async fn run(mut self) {
        let ended = tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            ended = self.tasks.ended() => ended,
        };
        if let Some((name, panicked)) = ended
            && !self.stop.is_cancelled()
        {
            error!(name, panicked, "a part of this member ended");
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

    /// Why Raft has stopped by itself, if it has: parts that follow it end with it, and whichever is
    /// noticed first must not hide the cause.
    async fn store_failed(&self) -> Option<String> {
        let group = self.group.borrow().clone()?;
        let mut metrics = group.metrics();
        let failed = metrics.wait_for(|metrics| metrics.running_state.is_err());
        let metrics = timeout(CAUSE, failed).await.ok()?.ok()?;
        metrics.running_state.as_ref().err().map(ToString::to_string)
    }
}
