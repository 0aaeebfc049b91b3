//! Controllers of etcd, on this node and in the cluster.

pub mod clients;
pub mod membership;
pub mod unit;
