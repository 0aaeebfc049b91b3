//! A node's report about its etcd. Knows neither the plan nor the members.

use muster_types::etcd::{DataState, EtcdGeneration};
use serde::{Deserialize, Serialize};

/// A control-plane node's report about its own etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdReport {
    /// The generation that the report is about; reports about an earlier one are ignored.
    pub generation: EtcdGeneration,
    pub data: DataState,
    /// The version of the etcd binary.
    #[serde(default)]
    pub version: String,
}
