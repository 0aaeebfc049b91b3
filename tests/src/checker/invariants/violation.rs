//! A violated invariant, as a test reports it.

use std::fmt;

use crate::checker::history::{ClusterIdReport, Read};

/// A violated invariant, with the operations that show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A value was written twice: the clients are broken, and the other checks mean nothing.
    Repeated { value: u64 },
    /// A read shows a value whose write had not begun.
    Phantom { value: u64, read: ReadSummary },
    /// A read lacks a write that was acknowledged before it began.
    Lost { value: u64, acknowledged: u64, read: ReadSummary },
    /// A read lacks a value that an earlier read showed.
    Stale { value: u64, shown: ReadSummary, read: ReadSummary },
    /// Each of two reads shows a value that the other lacks.
    Disagreement { one: ReadSummary, other: ReadSummary },
    /// A read shows one write and lacks another that was acknowledged before the first began.
    OutOfOrder { missing: u64, shown: u64, read: ReadSummary },
    /// Each of two register values has to come before the other.
    Cycle { one: u64, other: u64, why: String },
    /// Nodes belong to different clusters.
    TwoClusters { one: ClusterIdReport, other: ClusterIdReport },
}

/// A read without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadSummary {
    pub node: String,
    pub began: u64,
    pub ended: u64,
}

impl<T> Read<T> {
    pub(super) fn summary(&self) -> ReadSummary {
        ReadSummary { node: self.node.clone(), began: self.began, ended: self.ended }
    }
}

impl fmt::Display for ReadSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read through {} ({}..{} µs)", self.node, self.began, self.ended)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repeated { value } => write!(f, "the clients wrote {value} twice"),
            Self::Phantom { value, read } => {
                write!(f, "phantom: a {read} shows {value}, which was not written yet")
            }
            Self::Lost { value, acknowledged, read } => {
                write!(f, "lost: {value}, acknowledged at {acknowledged} µs, is not in a {read}")
            }
            Self::Stale { value, shown, read } => {
                write!(f, "stale: {value} was in a {shown}, and is not in a {read}")
            }
            Self::Disagreement { one, other } => {
                write!(f, "disagreement: a {one} and a {other} each lack a value of the other")
            }
            Self::OutOfOrder { missing, shown, read } => write!(
                f,
                "out of order: a {read} shows {shown} and lacks {missing}, which was acknowledged \
                 before {shown} began"
            ),
            Self::Cycle { one, other, why } => {
                write!(f, "register: {one} and {other} each come before the other: {why}")
            }
            Self::TwoClusters { one, other } => write!(
                f,
                "two clusters for one token: {} reported {} at {} µs, {} reported {} at {} µs",
                one.node, one.cluster, one.at, other.node, other.cluster, other.at
            ),
        }
    }
}
