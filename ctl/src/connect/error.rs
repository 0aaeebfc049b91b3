//! Why a call failed, and what to do about it.

use std::error::Error as _;

use tonic::{Code, Status};

use super::{Kind, is_not_now};
use crate::context::ContextError;
use crate::failure::chain;

/// An endpoint that did not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) endpoint: String,
    pub(crate) why: String,
    /// The node was there and wanted nothing to do with this operator's key or token.
    pub(crate) refused: bool,
}

/// A node that is there while the cluster is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) endpoint: String,
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) version: String,
    /// The one thing that it waits for, in its own words.
    pub(crate) awaits: String,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error(
        "the context names no endpoint: give the address of a node with `-e ADDRESS`, or keep it \
         with `musterctl context endpoints ADDRESS…`"
    )]
    NoEndpoint,
    #[error(
        "the context has neither a trust anchor nor a token to get one with: take the context \
         over again from where `musterctl init` wrote it"
    )]
    NoToken,
    #[error("no member has the name or node id {node}; see `musterctl members`")]
    NoSuchNode { node: String },
    #[error("there is no cluster yet; {}", waiting(nodes))]
    NoCluster { nodes: Vec<Waiting>, attempts: Vec<Attempt> },
    #[error(
        "could not {what}: no node answered: {}; is musterd up there and reachable from here? name \
         another node with `-e ADDRESS`",
        listed(attempts)
    )]
    Unreachable { what: &'static str, attempts: Vec<Attempt> },
    #[error("could not {what}: {endpoint} refused: {message}")]
    Refused { what: &'static str, endpoint: String, message: String },
    #[error("could not {what}: {endpoint} is not ready: {message}")]
    NotReady { what: &'static str, endpoint: String, message: String },
    #[error(
        "{endpoint} was asked to {what} and did not say that it is done ({why}): it may have been; \
         look before you repeat it"
    )]
    LostTouch { what: &'static str, endpoint: String, why: String },
    #[error("could not {what}: {endpoint} says: {message}")]
    Failed { what: &'static str, endpoint: String, message: String },
    #[error(
        "{endpoint} answered what cannot be: {message}; are both of one version? (`musterctl version`)"
    )]
    Senseless { endpoint: String, message: String },
}

impl CallError {
    /// What it means that no endpoint did.
    pub(super) fn unreachable(what: &'static str, attempts: Vec<Attempt>) -> Self {
        if attempts.is_empty() {
            return Self::NoEndpoint;
        }
        if attempts.iter().all(|attempt| attempt.refused) {
            let endpoints: Vec<&str> = attempts.iter().map(|a| a.endpoint.as_str()).collect();
            let message = attempts[0].why.clone();
            return Self::Refused { what, endpoint: endpoints.join(", "), message };
        }
        Self::Unreachable { what, attempts }
    }
}

fn listed(attempts: &[Attempt]) -> String {
    let each: Vec<String> =
        attempts.iter().map(|attempt| format!("{}: {}", attempt.endpoint, attempt.why)).collect();
    each.join("; ")
}

fn waiting(nodes: &[Waiting]) -> String {
    let each: Vec<String> = nodes
        .iter()
        .map(|Waiting { name, endpoint, awaits, .. }| {
            format!("{name} ({endpoint}) waits for: {awaits}")
        })
        .collect();
    each.join("; ")
}

/// What to do with a call that failed.
pub(super) enum Verdict {
    Next(Attempt),
    NotNow(CallError),
    Final(CallError),
}

/// Decides over a status: one that the server sent, or one that stands for a broken connection.
pub(super) fn judge(status: &Status, kind: Kind, what: &'static str, endpoint: &str) -> Verdict {
    let endpoint = endpoint.to_owned();
    let local = status.source().is_some() || status.code() == Code::DeadlineExceeded;
    if local {
        let why = status.source().map_or_else(|| status.message().to_owned(), chain);
        return match kind {
            Kind::Idempotent => Verdict::Next(Attempt { endpoint, why, refused: false }),
            Kind::Once => Verdict::Final(CallError::LostTouch { what, endpoint, why }),
        };
    }
    let message = match status.message() {
        "" => format!("{:?} without a reason", status.code()),
        message => message.to_owned(),
    };
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => {
            Verdict::Final(CallError::Refused { what, endpoint, message })
        }
        // Whoever says "not now" may have begun all the same.
        code if is_not_now(code) && kind == Kind::Once => {
            Verdict::Final(CallError::LostTouch { what, endpoint, why: message })
        }
        code if is_not_now(code) => {
            Verdict::NotNow(CallError::NotReady { what, endpoint, message })
        }
        _ => Verdict::Final(CallError::Failed { what, endpoint, message }),
    }
}
