//! Tasks of a control-plane member: Raft and its controllers, etcd, the operator API.

use muster_gossip::{Gossip, LivenessState};
use muster_init::units::etcd::dir::EtcdDir;
use muster_init::units::etcd::{self, Binary, EtcdUnit, policy};
use muster_types::NodeId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{JoinedAs, MemberRuntime, MemberTasks};
use crate::api::operator::{self, OperatorContext};
use crate::controllers::etcd::membership;
use crate::controllers::etcd::unit::EtcdUnitController;
use crate::controllers::{certificate, directory, founding, report, voters};
use crate::fatal::Fatal;
use crate::membership::Membership;
use crate::prepare::Prepared;
use crate::raft::{self, Group, StartError};
use crate::restore::Restore;
use crate::status::StatusWriter;
use muster_storage::{OpenError, StoreError};
use muster_types::error::chain;

impl MemberRuntime {
    /// Starts a control-plane member's tasks.
    pub(super) async fn control_plane(
        self,
        member_tasks: &mut MemberTasks,
        joined_as: JoinedAs,
        membership: &Membership,
        gossip: &Gossip,
    ) -> Result<(), Fatal> {
        let Prepared { identity, state, etcd: binary, restore_etcd, .. } = self.prepared;
        let MemberTasks { tasks, stop, fatal_sender, .. } = member_tasks;
        let (founding, founders) = match joined_as {
            JoinedAs::Founder(founder) => (Some(founder.founding), Some(founder.voters)),
            JoinedAs::Joiner => (None, None),
        };
        let start = raft::StartOptions {
            dir: state.raft(),
            me: identity.node_id(),
            cluster: membership.cluster_id,
            founders,
            snapshot_every: raft::timing::SNAPSHOT_EVERY,
        };
        let running =
            raft::start(start, self.endpoint.clone()).await.map_err(|e| raft_start_error(&e))?;
        let group = running.group.clone();
        tasks.spawn("raft-watch", running.run(stop.clone()));
        tasks.spawn("raft-store", watch_store(group.clone(), fatal_sender.clone(), stop.clone()));
        self.status.set_group(Some(group.clone()));
        if let Some(founding) = founding {
            let (group, stop) = (group.clone(), stop.clone());
            tasks.spawn("founding", async move {
                founding::run(founding, group, stop.clone()).await;
                stop.cancelled().await;
            });
        }
        let seen = gossip.liveness();
        let is_alive = move |id: &NodeId| {
            seen.borrow().get(id).is_some_and(|s| s.state == LivenessState::Alive)
        };
        tasks.spawn("voters", voters::run(group.clone(), is_alive, stop.clone()));
        let key = identity.public_key();
        tasks.spawn(
            "certificate",
            certificate::run(group.clone(), key, self.trust_store.clone(), stop.clone()),
        );
        tasks.spawn(
            "directory",
            directory::run(
                group.clone(),
                gossip.liveness(),
                self.trust_store.clone(),
                stop.clone(),
            ),
        );
        let binary = binary.ok_or(Fatal::TaskExited("etcd"))?;
        let unit =
            EtcdParts { binary, etcd_dir: EtcdDir::new(state.etcd()), restore: restore_etcd };
        unit.start(member_tasks, &group, &self.status, gossip);
        let MemberTasks { tasks, stop, .. } = member_tasks;
        tasks.spawn("report", report::run(group.clone(), self.status.reader(), stop.clone()));
        let context =
            OperatorContext::new(group.clone(), self.endpoint, self.node_status, gossip.liveness());
        let trust = self.trust_store.trust();
        let serve = operator::serve(self.operator_port, group, trust, context, stop.clone());
        tasks.spawn("operators", serve);
        Ok(())
    }
}

/// Inputs of this node's etcd.
struct EtcdParts {
    binary: Binary,
    etcd_dir: EtcdDir,
    restore: Option<Restore>,
}

impl EtcdParts {
    /// Starts the unit and the controller of etcd's membership.
    fn start(
        self,
        member_tasks: &mut MemberTasks,
        group: &Group,
        status: &StatusWriter,
        gossip: &Gossip,
    ) {
        let Self { binary, etcd_dir, restore } = self;
        let MemberTasks { tasks, stop, .. } = member_tasks;
        let (handle, owner) = EtcdUnit::new(etcd_dir.clone(), policy());
        tasks.spawn("etcd", owner.run(stop.clone()));
        let unit = EtcdUnitController {
            group: group.clone(),
            binary,
            etcd_dir,
            handle,
            restore,
            unit: status.register_unit(etcd::NAME),
            status: status.clone(),
        };
        tasks.spawn("etcd-unit", unit.run(stop.clone()));
        let run = membership::run(group.clone(), gossip.liveness(), stop.clone());
        tasks.spawn("etcd-membership", run);
    }
}

/// Converts a start error of Raft. A rejected directory and data of a newer version are machine
/// errors; others are store errors.
pub(super) fn raft_start_error(error: &StartError) -> Fatal {
    match error {
        StartError::Open(
            OpenError::Directory(_)
            | OpenError::Store(StoreError::Newer { .. } | StoreError::SnapshotTooLarge { .. }),
        ) => Fatal::Machine(chain(error)),
        StartError::Open(OpenError::Store(_))
        | StartError::Config(_)
        | StartError::Core(_)
        | StartError::Panicked => Fatal::Store(chain(error)),
    }
}

/// Stops the node when Raft has failed: a node that cannot write must not serve.
async fn watch_store(group: Group, fatal_sender: mpsc::Sender<Fatal>, stop: CancellationToken) {
    let mut metrics = group.metrics();
    let failed = metrics.wait_for(|metrics| metrics.running_state.is_err());
    let why = match stop.run_until_cancelled(failed).await {
        Some(Ok(metrics)) => metrics.running_state.as_ref().err().map(ToString::to_string),
        Some(Err(_)) | None => None,
    };
    if let Some(why) = why
        && !stop.is_cancelled()
    {
        fatal_sender.send(Fatal::Store(why)).await.ok();
    }
    stop.cancelled().await;
}
