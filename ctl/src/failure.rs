//! Errors of all commands and their exit codes.

use std::error::Error;
use std::io;

use muster_types::error::chain;

use crate::client::CallError;
use crate::command::cluster::LocalError;
use crate::command::etcd::EtcdError;
use crate::command::init::InitError;
use crate::context::ContextError;

/// Why a command failed. `docs/guide/cli.md` lists the exit codes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    #[error("write the output")]
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
        "--node does not apply to this command\n\
         try: without it, or --endpoint ADDRESS to ask a particular node"
    )]
    NodeNotApplicable,
    /// The command succeeded, but the cluster is not healthy.
    #[error("{0}")]
    NotHealthy(String),
}

/// Exit codes, as documented in `docs/cli.md`.
mod code {
    pub(super) const FAILED: u8 = 1;
    /// The code that clap uses for a wrong command line.
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
            Self::Call(CallError::Unreachable { .. } | CallError::OutcomeUnknown { .. }) => {
                code::UNREACHABLE
            }
            Self::Call(CallError::Refused { .. }) => code::REFUSED,
            Self::NodeNotApplicable => code::USAGE,
            Self::Call(CallError::NotReady { .. } | CallError::NoCluster { .. })
            | Self::NotHealthy(_)
            | Self::Etcd(EtcdError::NoAnswer { .. })
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

/// First line of [`chain`]: the failure without possible causes and next step.
pub(crate) fn summary(error: &dyn Error) -> String {
    chain(error).lines().next().unwrap_or_default().to_owned()
}
