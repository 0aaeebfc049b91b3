//! Controllers of etcd, on this node and in the cluster.

pub mod access;
pub mod members;
pub mod unit;
