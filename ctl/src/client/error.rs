//! Errors of calls: classifies them and suggests the next step.

use std::error::Error;
use std::iter;

use muster_types::error::chain;
use tonic::{Code, ConnectError, Status};

use super::{CallKind, is_retryable};
use crate::context::ContextError;

/// A failed attempt at one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) endpoint: String,
    pub(crate) why: String,
    pub(crate) failure: FailureKind,
}

/// Kind of a failed attempt, ordered from least to most informative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FailureKind {
    /// No answer, or the connection broke.
    NoAnswer,
    /// The peer answers, but does not prove that it belongs to the pinned cluster.
    Untrusted,
    /// The node rejects this operator's key or token.
    Rejected,
}

/// A node that answers before the cluster exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnformedNode {
    pub(crate) endpoint: String,
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) version: String,
    /// The one condition that it waits for, as the node describes it.
    pub(crate) waiting_for: String,
}

/// Error of a call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error(
        "the context names no endpoint\n\
         try: `-e ADDRESS` once, or `musterctl context endpoints ADDRESS…` to keep it"
    )]
    NoEndpoint,
    #[error(
        "the context has neither a trust anchor nor a token\n\
         try: `musterctl context add DIR` with the directory that `musterctl init` wrote"
    )]
    NoToken,
    #[error("no member has the name or node id {node}\ntry: `musterctl members`")]
    NoSuchNode { node: String },
    #[error("there is no cluster yet\n{}", format_waiting(nodes))]
    NoCluster { nodes: Vec<UnformedNode>, attempts: Vec<Attempt> },
    /// No node took the call. A call of kind [`CallKind::NonIdempotent`] was never sent in that case.
    #[error("could not {what}{}: {}", not_done_note(*kind), describe_attempts(attempts, *given))]
    Unreachable {
        what: &'static str,
        kind: CallKind,
        attempts: Vec<Attempt>,
        /// True if the endpoints came from the command line instead of the context.
        given: bool,
    },
    #[error("could not {what}: {endpoint} refused: {message}")]
    Refused { what: &'static str, endpoint: String, message: String },
    #[error("could not {what}: {endpoint} is not ready: {message}")]
    NotReady { what: &'static str, endpoint: String, message: String },
    #[error(
        "{what}: outcome unknown, {endpoint} did not confirm it ({why})\n\
         it may have been done: check the state before you retry"
    )]
    OutcomeUnknown { what: &'static str, endpoint: String, why: String },
    #[error("could not {what}: {endpoint} says: {message}")]
    Failed { what: &'static str, endpoint: String, message: String },
    #[error(
        "invalid reply from {endpoint}: {message}\n\
         try: `musterctl version` to compare the versions of musterctl and the node"
    )]
    InvalidReply { endpoint: String, message: String },
}

impl CallError {
    /// Error for a call that failed at every endpoint.
    pub(super) fn unreachable(
        what: &'static str,
        kind: CallKind,
        attempts: Vec<Attempt>,
        given: bool,
    ) -> Self {
        if attempts.is_empty() {
            return Self::NoEndpoint;
        }
        if attempts.iter().all(|attempt| attempt.failure == FailureKind::Rejected) {
            let endpoints: Vec<&str> = attempts.iter().map(|a| a.endpoint.as_str()).collect();
            let message = attempts[0].why.clone();
            return Self::Refused { what, endpoint: endpoints.join(", "), message };
        }
        Self::Unreachable { what, kind, attempts, given }
    }
}

/// States that nothing was done, for a call that must not run twice.
fn not_done_note(kind: CallKind) -> &'static str {
    match kind {
        CallKind::Idempotent => "",
        CallKind::NonIdempotent => ", and nothing was done",
    }
}

/// Lists the attempts, possible causes and the next step.
fn describe_attempts(attempts: &[Attempt], given: bool) -> String {
    let each: Vec<String> =
        attempts.iter().map(|attempt| format!("{}: {}", attempt.endpoint, attempt.why)).collect();
    let each = each.join("; ");
    if attempts.iter().any(|attempt| attempt.failure == FailureKind::Untrusted) {
        let members = if given {
            "`musterctl members` without -e, which lists the members"
        } else {
            "name a member with `-e ADDRESS`"
        };
        return format!(
            "no member of this cluster answered: {each}\n\
             possible causes: not a member yet, another cluster, a worker without a control-plane \
             node\n\
             try: {members}\n\
             if it is not a member yet: `musterctl status --context ./DIR -e ADDRESS`, with the \
             directory that `musterctl init` wrote, or the log of its musterd shows what it waits for"
        );
    }
    format!(
        "no node answered: {each}\n\
         possible causes: musterd is not running there, or not reachable from here\n\
         try: another node with `-e ADDRESS`"
    )
}

fn format_waiting(nodes: &[UnformedNode]) -> String {
    let each: Vec<String> = nodes
        .iter()
        .map(|UnformedNode { name, endpoint, waiting_for, .. }| {
            format!("{name} ({endpoint}) waits for: {waiting_for}")
        })
        .collect();
    each.join("\n")
}

/// Returns true if the call failed before it was sent, because no connection was made. For any
/// other failure this is not certain.
fn was_never_sent(status: &Status) -> bool {
    iter::successors(status.source(), |&error| error.source())
        .any(<dyn Error + 'static>::is::<ConnectError>)
}

/// Next step after a failed call.
pub(super) enum NextStep {
    TryNext(Attempt),
    RetryLater(CallError),
    Fail(CallError),
}

/// Classifies a status: one that the server sent, or one that tonic made for a broken connection.
pub(super) fn classify(
    status: &Status,
    kind: CallKind,
    what: &'static str,
    endpoint: &str,
) -> NextStep {
    let endpoint = endpoint.to_owned();
    let local = status.source().is_some() || status.code() == Code::DeadlineExceeded;
    if local {
        let why = status.source().map_or_else(|| status.message().to_owned(), chain);
        return if kind == CallKind::Idempotent || was_never_sent(status) {
            NextStep::TryNext(Attempt { endpoint, why, failure: FailureKind::NoAnswer })
        } else {
            NextStep::Fail(CallError::OutcomeUnknown { what, endpoint, why })
        };
    }
    let message = match status.message() {
        "" => format!("{:?} without a reason", status.code()),
        message => message.to_owned(),
    };
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => {
            NextStep::Fail(CallError::Refused { what, endpoint, message })
        }
        // A node that answers "not now" may have begun anyway.
        code if is_retryable(code) && kind == CallKind::NonIdempotent => {
            NextStep::Fail(CallError::OutcomeUnknown { what, endpoint, why: message })
        }
        code if is_retryable(code) => {
            NextStep::RetryLater(CallError::NotReady { what, endpoint, message })
        }
        _ => NextStep::Fail(CallError::Failed { what, endpoint, message }),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn broken(error: impl Error + Send + Sync + 'static) -> Status {
        Status::from_error(Box::new(error))
    }

    /// Regression: a refused connection was reported as an unknown outcome for a call that must not
    /// be repeated.
    #[test]
    fn a_call_that_was_never_sent_goes_to_the_next_node_and_no_other_does() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        for kind in [CallKind::Idempotent, CallKind::NonIdempotent] {
            let unsent = broken(ConnectError(refused().into()));
            let NextStep::TryNext(attempt) = classify(&unsent, kind, "do it", "cp-1") else {
                panic!("{kind:?}: it is not sent to another node")
            };
            assert_eq!(
                (attempt.endpoint.as_str(), attempt.failure),
                ("cp-1", FailureKind::NoAnswer)
            );
        }
        let told = Status::unavailable("etcd: Connection refused");
        for status in [broken(reset()), broken(refused()), told, Status::deadline_exceeded("late")]
        {
            let step = classify(&status, CallKind::NonIdempotent, "do it", "cp-1");
            assert!(
                matches!(&step, NextStep::Fail(CallError::OutcomeUnknown { .. })),
                "unknown whether it was sent: {status}"
            );
        }
    }

    #[test]
    fn the_advice_depends_on_the_kind_of_failure() {
        let attempt = |failure| Attempt { endpoint: "x".to_owned(), why: "y".to_owned(), failure };
        let told = |kind, failure| {
            CallError::unreachable("do it", kind, vec![attempt(failure)], true).to_string()
        };
        let silent = told(CallKind::Idempotent, FailureKind::NoAnswer);
        assert!(silent.starts_with("could not do it: no node answered: x: y\npossible causes"));
        let silent = told(CallKind::NonIdempotent, FailureKind::NoAnswer);
        assert!(
            silent.starts_with("could not do it, and nothing was done: no node answered: x: y")
        );
        let foreign = told(CallKind::Idempotent, FailureKind::Untrusted);
        assert!(foreign.starts_with("could not do it: no member of this cluster answered: x: y\n"));
        assert!(
            foreign.contains("musterctl members") && !foreign.contains("musterd is not running")
        );
        let attempts = vec![attempt(FailureKind::Untrusted), attempt(FailureKind::NoAnswer)];
        let known =
            CallError::unreachable("do it", CallKind::Idempotent, attempts, false).to_string();
        assert!(known.contains("no member of this cluster answered: x: y; x: y\nposs"), "{known}");
        assert!(known.contains("name a member with `-e ADDRESS`"), "{known}");
        assert!(!known.contains("musterctl members"), "it would ask the same nodes: {known}");
        assert_eq!(
            told(CallKind::NonIdempotent, FailureKind::Rejected),
            "could not do it: x refused: y"
        );
    }
}
