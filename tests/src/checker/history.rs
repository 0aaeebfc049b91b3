//! The history of one run, as the clients recorded it. It judges nothing.
//!
//! Times are microseconds of one clock, that of the process with all clients. A call that did not
//! succeed may have taken effect, or may still do so: its write has no end.

use std::collections::BTreeSet;

use serde::Serialize;

/// A write of a value that is written only once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Write {
    pub value: u64,
    pub began: u64,
    /// Time of the acknowledgement; `None` if the outcome is unknown.
    pub acknowledged: Option<u64>,
    /// Node that the client called.
    pub node: String,
}

/// A read that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Read<T> {
    pub seen: T,
    pub began: u64,
    pub ended: u64,
    /// Node that the client called.
    pub node: String,
}

/// All operations on one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Object<T> {
    pub writes: Vec<Write>,
    pub reads: Vec<Read<T>>,
}

impl<T> Default for Object<T> {
    fn default() -> Self {
        Self { writes: Vec::new(), reads: Vec::new() }
    }
}

/// Grow-only set: each write adds its value, a read returns all values.
pub type Set = Object<BTreeSet<u64>>;

/// Register: a read returns the last value written, `None` before the first write.
pub type Register = Object<Option<u64>>;

/// The cluster id that a node reported, or that its disk holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterIdReport {
    pub node: String,
    pub cluster: String,
    pub at: u64,
}

/// All operations of one run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct History {
    /// Tokens in Muster's replicated state.
    pub tokens: Set,
    /// Keys in etcd.
    pub keys: Set,
    /// One key in etcd.
    pub register: Register,
    pub cluster_ids: Vec<ClusterIdReport>,
}
