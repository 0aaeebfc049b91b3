//! What clients saw, and the verdict over it.
//!
//! Times are microseconds of one clock, that of the process all clients live in. A call that was
//! answered with anything but success may have been carried out or may be yet: its write has no end.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::{register, set, sightings};

/// A write of a value that is written once and never again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Write {
    pub value: u64,
    pub began: u64,
    /// When it was acknowledged; none if it may or may not have happened.
    pub acknowledged: Option<u64>,
    /// Through which node.
    pub node: String,
}

/// A read that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Read<T> {
    pub seen: T,
    pub began: u64,
    pub ended: u64,
    pub node: String,
}

/// All that happened to one object.
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

/// A set that only grows: each write adds its value, a read shows all values.
pub type Set = Object<BTreeSet<u64>>;

/// One value, the last written; none before the first write.
pub type Register = Object<Option<u64>>;

/// A node said to which cluster it belongs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sighting {
    pub node: String,
    pub cluster: String,
    pub at: u64,
}

/// Everything that the clients of one run saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct History {
    /// Tokens in Muster's own state.
    pub tokens: Set,
    /// Keys in etcd.
    pub keys: Set,
    /// One key in etcd.
    pub register: Register,
    pub sightings: Vec<Sighting>,
}

/// What must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// Two writes of one value: the clients are broken, nothing can be said.
    Repeated { value: u64 },
    /// A value was read that nobody had begun to write.
    Phantom { value: u64, read: Seen },
    /// An acknowledged write is missing from a read that began afterwards.
    Lost { value: u64, acknowledged: u64, read: Seen },
    /// A read does not show what an earlier one had shown.
    Stale { value: u64, shown: Seen, read: Seen },
    /// Each of two reads shows a value that the other one misses.
    Contradiction { one: Seen, other: Seen },
    /// A read shows a write but not the one that had been acknowledged before it began.
    Skipped { missing: u64, shown: u64, read: Seen },
    /// Of two values of a register, each has to come before the other one.
    Unordered { one: u64, other: u64, why: String },
    /// Nodes belong to different clusters.
    TwoClusters { one: Sighting, other: Sighting },
}

/// A read, as it is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub node: String,
    pub began: u64,
    pub ended: u64,
}

impl<T> Read<T> {
    pub(super) fn told(&self) -> Seen {
        Seen { node: self.node.clone(), began: self.began, ended: self.ended }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read through {} ({}..{} µs)", self.node, self.began, self.ended)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repeated { value } => write!(f, "{value} was written twice by the clients"),
            Self::Phantom { value, read } => {
                write!(f, "phantom: {value}, {read}, had not been written by anyone")
            }
            Self::Lost { value, acknowledged, read } => {
                write!(f, "lost: {value}, acknowledged at {acknowledged} µs, is not in a {read}")
            }
            Self::Stale { value, shown, read } => {
                write!(f, "stale: {value} was in a {shown}, and is not in a {read}")
            }
            Self::Contradiction { one, other } => {
                write!(f, "contradiction: a {one} and a {other} each miss what the other shows")
            }
            Self::Skipped { missing, shown, read } => write!(
                f,
                "skipped: a {read} shows {shown}, and not {missing}, acknowledged before {shown} \
                 was begun"
            ),
            Self::Unordered { one, other, why } => {
                write!(f, "register: {one} and {other} each come before the other: {why}")
            }
            Self::TwoClusters { one, other } => write!(
                f,
                "two clusters for one token: {} said {} at {} µs, {} said {} at {} µs",
                one.node, one.cluster, one.at, other.node, other.cluster, other.at
            ),
        }
    }
}

/// Everything that is wrong with a history, by object; empty if nothing is.
pub fn judge(history: &History) -> Vec<(&'static str, Violation)> {
    let mut found = Vec::new();
    let mut add = |object, violations: Vec<Violation>| {
        found.extend(violations.into_iter().map(|violation| (object, violation)));
    };
    add("muster's tokens", set::check(&history.tokens));
    add("etcd's keys", set::check(&history.keys));
    add("etcd's register", register::check(&history.register));
    add("clusters", sightings::check(&history.sightings));
    found
}
