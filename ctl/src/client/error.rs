//! Errors of calls, in words: what failed at which endpoint, possible causes, next step. Does not
//! decide what happens next.

use muster_types::error::chain;

use crate::context::ContextError;

/// Effect of repeating a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// Same effect as one call.
    Idempotent,
    /// Possibly harmful: never repeated once it was sent and its reply lost.
    NonIdempotent,
}

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
    /// Every node that answered refused the call.
    #[error("could not {what}: {}", describe_refusals(refusals))]
    Refused { what: &'static str, refusals: Vec<Attempt> },
    /// A call of kind [`CallKind::NonIdempotent`] has not begun in that case.
    #[error("could not {what}{}: {endpoint} is not ready: {message}", not_done_note(*kind))]
    NotReady { what: &'static str, kind: CallKind, endpoint: String, message: String },
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
            return Self::Refused { what, refusals: attempts };
        }
        Self::Unreachable { what, kind, attempts, given }
    }

    /// Returns true for a transient failure, which may pass by itself.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::NoCluster { .. }
                | Self::Unreachable { .. }
                | Self::NotReady { .. }
                | Self::OutcomeUnknown { .. }
        )
    }

    /// Key of a transient failure: its kind and the endpoints. The text may differ at each attempt,
    /// but the failure is worth another report only if this key changes.
    pub(crate) fn change_key(&self) -> String {
        match self {
            Self::Unreachable { attempts, .. } => {
                let asked: Vec<&str> = attempts.iter().map(|a| a.endpoint.as_str()).collect();
                format!("no answer from {}", asked.join(" "))
            }
            Self::NotReady { endpoint, .. } => format!("{endpoint} is not ready"),
            Self::OutcomeUnknown { endpoint, .. } => format!("lost {endpoint}"),
            other => chain(other),
        }
    }
}

/// Lists the endpoints that refused, together if they gave the same reason.
fn describe_refusals(refusals: &[Attempt]) -> String {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for Attempt { endpoint, why, .. } in refusals {
        match reasons.iter_mut().find(|(reason, _)| reason == why) {
            Some((_, endpoints)) => endpoints.push(endpoint),
            None => reasons.push((why, vec![endpoint])),
        }
    }
    let each: Vec<String> = reasons
        .iter()
        .map(|(why, endpoints)| format!("{} refused: {why}", endpoints.join(", ")))
        .collect();
    each.join("; ")
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
             node, too many open connections from this address\n\
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

#[cfg(test)]
mod tests {
    use super::*;

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

    /// Regression: all endpoints were listed with the reason of the first one.
    #[test]
    fn every_refusal_is_reported_with_its_reason() {
        let attempt = |endpoint: &str, why: &str| Attempt {
            endpoint: endpoint.to_owned(),
            why: why.to_owned(),
            failure: FailureKind::Rejected,
        };
        let attempts = vec![
            attempt("a", "unknown key"),
            attempt("b", "wrong token"),
            attempt("c", "unknown key"),
        ];
        let error = CallError::unreachable("do it", CallKind::Idempotent, attempts, false);
        assert_eq!(
            error.to_string(),
            "could not do it: a, c refused: unknown key; b refused: wrong token"
        );
    }
}
