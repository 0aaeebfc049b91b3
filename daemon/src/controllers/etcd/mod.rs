//! Controllers of etcd, on this node and in the cluster.

pub mod membership;
pub mod unit;
