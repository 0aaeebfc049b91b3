//! First-start parameters of a member, and the record of them that outlives its data. Reads and
//! writes no file: `dir` does.

use muster_types::NodeName;
use muster_types::etcd::{EtcdPeer, InitialClusterState};
use serde::{Deserialize, Serialize};

/// Format version of the start records that this build writes, and the newest it reads.
pub(super) const FORMAT: u32 = 1;

/// First-start parameters; ignored once the member has data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitialCluster {
    pub state: InitialClusterState,
    /// Equal for all founders, unique per cluster: etcd derives its ids from it.
    pub token: String,
    /// Every member, this one included, sorted by name.
    pub members: Vec<EtcdPeer>,
}

impl InitialCluster {
    /// The peer URL of the member with this name.
    pub fn peer_url(&self, name: &NodeName) -> Option<&str> {
        self.members.iter().find(|peer| peer.name == *name).map(|peer| peer.url.as_str())
    }
}

/// Start record: the parameters that a generation was started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartRecord {
    format: u32,
    pub name: NodeName,
    pub initial: InitialCluster,
    /// Data was seen on disk. Until then, a missing write-ahead log means that etcd has never
    /// acknowledged anything.
    pub had_data: bool,
    /// SHA-256 of the snapshot it was restored from, in hexadecimal; `None` if not restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_from: Option<String>,
}

impl StartRecord {
    pub(super) fn new(name: NodeName, initial: InitialCluster) -> Self {
        Self { format: FORMAT, name, initial, had_data: false, restored_from: None }
    }
}
