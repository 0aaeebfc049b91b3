//! What can go wrong, and the exit code that says so.

use std::error::Error;
use std::{io, iter};

use crate::command::cluster::LocalError;
use crate::command::etcd::EtcdError;
use crate::command::init::InitError;
use crate::connect::CallError;
use crate::context::ContextError;

/// Why a command failed. `docs/cli.md` lists the exit codes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    #[error("write the answer")]
    Output(#[from] io::Error),
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Init(#[from] InitError),
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    #[error(transparent)]
    Local(#[from] LocalError),
    #[error(
        "--node means nothing to this command, which is not about one node; leave it out, or ask a \
         particular node with --endpoint ADDRESS"
    )]
    NoNodeHere,
    /// The answer is complete and it is bad news.
    #[error("{0}")]
    NotHealthy(String),
}

/// Exit codes, as documented.
mod code {
    pub(super) const FAILED: u8 = 1;
    /// As clap does for a wrong command line.
    pub(super) const USAGE: u8 = 2;
    pub(super) const NOT_READY: u8 = 3;
    pub(super) const UNREACHABLE: u8 = 4;
    pub(super) const REFUSED: u8 = 5;
    /// `EX_CONFIG` of sysexits.h.
    pub(super) const CONFIG: u8 = 78;
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Call(CallError::Context(_) | CallError::NoEndpoint | CallError::NoToken)
            | Self::Context(_) => code::CONFIG,
            Self::Call(CallError::Unreachable { .. } | CallError::LostTouch { .. }) => {
                code::UNREACHABLE
            }
            Self::Call(CallError::Refused { .. }) => code::REFUSED,
            Self::NoNodeHere => code::USAGE,
            Self::Call(CallError::NotReady { .. } | CallError::NoCluster { .. })
            | Self::NotHealthy(_)
            | Self::Etcd(EtcdError::Silent { .. })
            | Self::Local(LocalError::NotHealthy { .. }) => code::NOT_READY,
            Self::Runtime(_)
            | Self::Output(_)
            | Self::Call(_)
            | Self::Init(_)
            | Self::Etcd(_)
            | Self::Local(_) => code::FAILED,
        }
    }
}

/// The error and its causes on one line: `read /x: permission denied`.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut links: Vec<String> =
        iter::successors(Some(error), |&e| e.source()).map(ToString::to_string).collect();
    links.dedup();
    links.join(": ")
}
