//! Everything that this node publishes about itself. Its tasks write it, each by its own setter. The
//! APIs, readiness and reports read it. Decides nothing: whether the node is ready follows from it,
//! in [`readiness`].

pub mod readiness;
mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use muster_init::units::UnitName;
use muster_messages::node::ClusterView;
use muster_state::EtcdReport;
use muster_types::ClusterId;
use tokio::sync::watch;
use tokio::sync::watch::error::RecvError;

pub use units::{PublishedUnit, UnitLeaf, UnitWriter};

use crate::raft::Group;

/// Status of this node.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    pub stage: Stage,
    /// The cluster that this node belongs to. Known before the member's tasks start.
    pub cluster: Option<ClusterId>,
    /// On a worker: true while a control-plane node answers. A control-plane node's connectivity is
    /// its group's.
    pub connected: bool,
    /// Handle to the Raft group. `None` on a worker, and before Raft has started.
    pub group: Option<Group>,
    /// On a worker: the last cluster view that it received.
    pub cluster_view: Option<Arc<ClusterView>>,
    /// Units that this node runs.
    pub units: BTreeMap<UnitName, PublishedUnit>,
    /// Report of this node's etcd for the etcd plan. `None` until it is known.
    pub etcd_report: Option<EtcdReport>,
    /// Reason why the operator port is not open yet.
    pub port_problem: Option<String>,
}

/// Stage of this node's life in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Its tasks as a member have not started. Holds the condition that it waits for, if known.
    Forming {
        waiting_for: Option<String>,
    },
    Member,
    /// Removed from its cluster. Final.
    Removed,
}

/// Publishes the status of this node. Cloneable: each task sets its own part.
#[derive(Debug, Clone)]
pub struct StatusWriter {
    node: watch::Sender<NodeStatus>,
    addresses: watch::Sender<Vec<SocketAddr>>,
}

impl StatusWriter {
    /// Creates the status of a node that starts. `cluster` is the one of its membership on disk.
    pub fn new(cluster: Option<ClusterId>, addresses: Vec<SocketAddr>) -> Self {
        let node = NodeStatus {
            stage: Stage::Forming { waiting_for: Some("its tasks to start".to_owned()) },
            cluster,
            connected: false,
            group: None,
            cluster_view: None,
            units: BTreeMap::new(),
            etcd_report: None,
            port_problem: None,
        };
        Self { node: watch::Sender::new(node), addresses: watch::Sender::new(addresses) }
    }

    pub fn reader(&self) -> StatusReader {
        StatusReader { node: self.node.subscribe(), addresses: self.addresses.subscribe() }
    }

    /// Sets the condition that formation waits for. Returns true if it has changed.
    pub fn set_waiting_for(&self, waiting_for: Option<String>) -> bool {
        self.set(|node| &mut node.stage, Stage::Forming { waiting_for })
    }

    pub fn set_cluster(&self, cluster: ClusterId) {
        self.set(|node| &mut node.cluster, Some(cluster));
    }

    /// Ends the formation: the member's tasks start.
    pub fn set_member(&self) {
        self.set(|node| &mut node.stage, Stage::Member);
    }

    pub fn set_removed(&self) {
        self.set(|node| &mut node.stage, Stage::Removed);
    }

    pub fn set_connected(&self, connected: bool) {
        self.set(|node| &mut node.connected, connected);
    }

    pub fn set_group(&self, group: Option<Group>) {
        self.node.send_modify(|node| node.group = group);
    }

    pub fn set_cluster_view(&self, view: Arc<ClusterView>) {
        self.node.send_modify(|node| node.cluster_view = Some(view));
    }

    pub fn set_etcd_report(&self, report: EtcdReport) {
        self.set(|node| &mut node.etcd_report, Some(report));
    }

    pub fn set_port_problem(&self, problem: Option<String>) {
        self.set(|node| &mut node.port_problem, problem);
    }

    /// Sets the addresses at which other nodes reach this one, best first. An empty list keeps the
    /// old ones, because an address may be lost for a moment only.
    pub fn set_addresses(&self, addresses: Vec<SocketAddr>) {
        self.addresses.send_if_modified(|known| {
            let changed = !addresses.is_empty() && *known != addresses;
            if changed {
                *known = addresses;
            }
            changed
        });
    }

    /// Registers a unit. From now on the node is ready only if the unit is, and operators see it.
    pub fn register_unit(&self, name: UnitName) -> UnitWriter {
        let writer = UnitWriter { name, node: self.node.clone() };
        writer.publish(PublishedUnit::STOPPED);
        writer
    }

    /// Sets one part, and notifies readers if it differs. Returns true if it does.
    fn set<T: PartialEq>(&self, part: impl FnOnce(&mut NodeStatus) -> &mut T, value: T) -> bool {
        self.node.send_if_modified(|node| {
            let part = part(node);
            let differs = *part != value;
            if differs {
                *part = value;
            }
            differs
        })
    }
}

/// Reads the status of this node.
#[derive(Debug, Clone)]
pub struct StatusReader {
    node: watch::Receiver<NodeStatus>,
    addresses: watch::Receiver<Vec<SocketAddr>>,
}

impl StatusReader {
    /// Reads a part. The status is locked meanwhile, so `read` must not read it again.
    pub fn get<T>(&self, read: impl FnOnce(&NodeStatus) -> T) -> T {
        read(&self.node.borrow())
    }

    /// Like [`Self::get`]; marks the status as seen for [`Self::changed`].
    pub fn get_and_update<T>(&mut self, read: impl FnOnce(&NodeStatus) -> T) -> T {
        read(&self.node.borrow_and_update())
    }

    pub fn group(&self) -> Option<Group> {
        self.get(|node| node.group.clone())
    }

    pub fn cluster_view(&self) -> Option<Arc<ClusterView>> {
        self.get(|node| node.cluster_view.clone())
    }

    /// Returns a receiver of the addresses at which other nodes reach this one, best first.
    pub fn addresses(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.addresses.clone()
    }

    /// Waits for a change of any part. Cancel-safe.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        self.node.changed().await
    }

    /// Waits until this node is known to be removed. Returns false if its status has ended.
    pub async fn wait_for_removal(&mut self) -> bool {
        self.node.wait_for(|node| node.stage == Stage::Removed).await.is_ok()
    }

    /// Waits for Raft to start. `None` if the status has ended.
    pub async fn wait_for_group(&mut self) -> Option<Group> {
        let node = self.node.wait_for(|node| node.group.is_some()).await.ok()?;
        node.group.clone()
    }
}

#[cfg(test)]
mod tests;
