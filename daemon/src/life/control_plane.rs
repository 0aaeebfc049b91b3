//! Tasks of a control-plane member: Raft and its controllers, etcd, the operator API.

use muster_gossip::{Gossip, LivenessState};
use muster_init::units::etcd::home::Home;
use muster_init::units::etcd::{Binary, policy, unit};
use muster_types::NodeId;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::operators::serve_operators;
use super::{Life, Origin, Serving};
use crate::api::local::EtcdView;
use crate::api::operator::Desk;
use crate::controllers::etcd::members;
use crate::controllers::etcd::unit::Unit;
use crate::controllers::report::Facts;
use crate::controllers::{certificate, directory, founding, report, voters};
use crate::fatal::Fatal;
use crate::membership::Membership;
use crate::prepare::Prepared;
use crate::raft::{self, Group, StartError};
use crate::restore::Restore;
use muster_state::EtcdReport;
use muster_storage::OpenError;
use muster_types::error::chain;

impl Life {
    /// Starts a control-plane member's tasks.
    pub(super) async fn control_plane(
        self,
        serving: &mut Serving,
        origin: Origin,
        membership: &Membership,
        gossip: &Gossip,
    ) -> Result<(), Fatal> {
        let Prepared { identity, state, etcd: binary, restore_etcd, .. } = self.prepared;
        let Serving { tasks, stop, ends, .. } = serving;
        let (founding, founders) = match origin {
            Origin::Founder(founder) => (Some(founder.founding), Some(founder.voters)),
            Origin::Joined => (None, None),
        };
        let start = raft::StartOptions {
            dir: state.raft(),
            me: identity.node_id(),
            cluster: membership.cluster_id,
            founders,
            snapshot_every: raft::timing::SNAPSHOT_EVERY,
        };
        let running =
            raft::start(start, self.endpoint.clone()).await.map_err(|e| raft_failed(&e))?;
        let group = running.group.clone();
        tasks.spawn("raft-watch", running.run(stop.clone()));
        tasks.spawn("raft-store", store_watch(group.clone(), ends.clone(), stop.clone()));
        self.publish.group.send_replace(Some(group.clone()));
        if let Some(founding) = founding {
            let (group, stop) = (group.clone(), stop.clone());
            tasks.spawn("founding", async move {
                founding::run(founding, group, stop.clone()).await;
                stop.cancelled().await;
            });
        }
        let seen = gossip.liveness();
        let lives = move |id: &NodeId| {
            seen.borrow().get(id).is_some_and(|s| s.state == LivenessState::Alive)
        };
        tasks.spawn("voters", voters::run(group.clone(), lives, stop.clone()));
        let key = identity.public_key();
        tasks.spawn(
            "certificate",
            certificate::run(group.clone(), key, self.keeper.clone(), stop.clone()),
        );
        tasks.spawn(
            "directory",
            directory::run(group.clone(), gossip.liveness(), self.keeper.clone(), stop.clone()),
        );
        let binary = binary.ok_or(Fatal::TaskEnded("etcd"))?;
        let unit = EtcdParts { binary, home: Home::new(state.etcd()), restore: restore_etcd };
        let reports = unit.start(serving, &group, self.publish.etcd, gossip);
        let Serving { tasks, stop, .. } = serving;
        let facts = Facts { addresses: self.own, etcd: reports };
        tasks.spawn("report", report::run(group.clone(), facts, stop.clone()));
        let desk = Desk::new(group.clone(), self.endpoint, self.local, gossip.liveness());
        let serve = serve_operators(self.listener, group, self.keeper.trust(), desk, stop.clone());
        tasks.spawn("operators", serve);
        Ok(())
    }
}

/// Inputs of this node's etcd.
struct EtcdParts {
    binary: Binary,
    home: Home,
    restore: Option<Restore>,
}

impl EtcdParts {
    /// Starts the unit and the controller of etcd's membership. Returns this node's etcd reports.
    fn start(
        self,
        serving: &mut Serving,
        group: &Group,
        view: watch::Sender<EtcdView>,
        gossip: &Gossip,
    ) -> watch::Receiver<Option<EtcdReport>> {
        let Self { binary, home, restore } = self;
        let Serving { tasks, stop, .. } = serving;
        let (handle, owner) = unit(home.clone(), policy());
        tasks.spawn("etcd", owner.run(stop.clone()));
        let (report, reports) = watch::channel(None);
        let unit = Unit { group: group.clone(), binary, home, handle, restore, view, report };
        tasks.spawn("etcd-unit", unit.run(stop.clone()));
        let run = members::run(group.clone(), gossip.liveness(), stop.clone());
        tasks.spawn("etcd-members", run);
        reports
    }
}

/// Converts a start error of Raft. A rejected directory is a machine error; others are store
/// errors.
pub(super) fn raft_failed(error: &StartError) -> Fatal {
    match error {
        StartError::Open(OpenError::Directory(_)) => Fatal::Machine(chain(error)),
        StartError::Open(OpenError::Store(_))
        | StartError::Config(_)
        | StartError::Core(_)
        | StartError::Panicked => Fatal::Store(chain(error)),
    }
}

/// Stops the node when Raft has failed: a node that cannot write must not serve.
async fn store_watch(group: Group, ends: mpsc::Sender<Fatal>, stop: CancellationToken) {
    let mut metrics = group.metrics();
    let failed = metrics.wait_for(|metrics| metrics.running_state.is_err());
    let why = match stop.run_until_cancelled(failed).await {
        Some(Ok(metrics)) => metrics.running_state.as_ref().err().map(ToString::to_string),
        Some(Err(_)) | None => None,
    };
    if let Some(why) = why
        && !stop.is_cancelled()
    {
        ends.send(Fatal::Store(why)).await.ok();
    }
    stop.cancelled().await;
}
