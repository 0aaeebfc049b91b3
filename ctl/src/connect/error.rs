//! Why a call failed, and what to do about it.

use std::error::Error;
use std::iter;

use tonic::{Code, ConnectError, Status};

use super::{Kind, is_not_now};
use crate::context::ContextError;
use crate::failure::chain;

/// An endpoint that did not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) endpoint: String,
    pub(crate) why: String,
    pub(crate) how: Miss,
}

/// In which way an endpoint did not do; the later ones tell more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Miss {
    /// Nobody answered, or the connection broke.
    Silent,
    /// Somebody is there who did not show to be of the pinned cluster.
    Foreign,
    /// The node is there and wants nothing to do with this operator's key or token.
    Refused,
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
    /// Nobody took the call. One of kind [`Kind::Once`] was never sent then.
    #[error("could not {what}{}: {}", untouched(*kind), missed(attempts, *given))]
    Unreachable {
        what: &'static str,
        kind: Kind,
        attempts: Vec<Attempt>,
        /// Whether they were at endpoints given with the command, not at those of the context.
        given: bool,
    },
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
    pub(super) fn unreachable(
        what: &'static str,
        kind: Kind,
        attempts: Vec<Attempt>,
        given: bool,
    ) -> Self {
        if attempts.is_empty() {
            return Self::NoEndpoint;
        }
        if attempts.iter().all(|attempt| attempt.how == Miss::Refused) {
            let endpoints: Vec<&str> = attempts.iter().map(|a| a.endpoint.as_str()).collect();
            let message = attempts[0].why.clone();
            return Self::Refused { what, endpoint: endpoints.join(", "), message };
        }
        Self::Unreachable { what, kind, attempts, given }
    }
}

/// That nothing was done, where one could think that something was.
fn untouched(kind: Kind) -> &'static str {
    match kind {
        Kind::Idempotent => "",
        Kind::Once => ", and nothing was done",
    }
}

/// The attempts, and what to do next.
fn missed(attempts: &[Attempt], given: bool) -> String {
    let each: Vec<String> =
        attempts.iter().map(|attempt| format!("{}: {}", attempt.endpoint, attempt.why)).collect();
    let each = each.join("; ");
    if attempts.iter().any(|attempt| attempt.how == Miss::Foreign) {
        let members = if given {
            "`musterctl members` without -e shows who is a member"
        } else {
            "name a member with `-e ADDRESS`"
        };
        return format!(
            "no node of this cluster answered: {each}; perhaps that machine is no member yet, or of \
             another cluster, or a worker that reaches no control-plane node: {members}; `musterctl \
             status --context ./DIR -e ADDRESS`, with the directory that `musterctl init` wrote, \
             shows what a machine that is none waits for; so does the log of its musterd"
        );
    }
    format!(
        "no node answered: {each}; is musterd up there and reachable from here? name another node \
         with `-e ADDRESS`"
    )
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

/// Whether a call failed for want of a connection, before any of it could be sent. Of any other
/// failure that is not certain.
fn was_never_sent(status: &Status) -> bool {
    iter::successors(status.source(), |&error| error.source())
        .any(<dyn Error + 'static>::is::<ConnectError>)
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
        return if kind == Kind::Idempotent || was_never_sent(status) {
            Verdict::Next(Attempt { endpoint, why, how: Miss::Silent })
        } else {
            Verdict::Final(CallError::LostTouch { what, endpoint, why })
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

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn broken(error: impl Error + Send + Sync + 'static) -> Status {
        Status::from_error(Box::new(error))
    }

    /// A call that must not be repeated was given up as perhaps done when its connection was refused.
    #[test]
    fn a_call_that_was_never_sent_goes_to_the_next_node_and_no_other_does() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        for kind in [Kind::Idempotent, Kind::Once] {
            let unsent = broken(ConnectError(refused().into()));
            let Verdict::Next(attempt) = judge(&unsent, kind, "do it", "cp-1") else {
                panic!("{kind:?}: it is not asked of another node")
            };
            assert_eq!((attempt.endpoint.as_str(), attempt.how), ("cp-1", Miss::Silent));
        }
        let told = Status::unavailable("etcd: Connection refused");
        for status in [broken(reset()), broken(refused()), told, Status::deadline_exceeded("late")]
        {
            let verdict = judge(&status, Kind::Once, "do it", "cp-1");
            assert!(
                matches!(&verdict, Verdict::Final(CallError::LostTouch { .. })),
                "nobody knows whether it was sent: {status}"
            );
        }
    }

    #[test]
    fn what_to_do_next_depends_on_whether_somebody_was_there() {
        let attempt = |how| Attempt { endpoint: "x".to_owned(), why: "y".to_owned(), how };
        let told =
            |kind, how| CallError::unreachable("do it", kind, vec![attempt(how)], true).to_string();
        let silent = told(Kind::Idempotent, Miss::Silent);
        assert!(silent.starts_with("could not do it: no node answered: x: y; is musterd up"));
        let silent = told(Kind::Once, Miss::Silent);
        assert!(
            silent.starts_with("could not do it, and nothing was done: no node answered: x: y")
        );
        let foreign = told(Kind::Idempotent, Miss::Foreign);
        assert!(foreign.starts_with("could not do it: no node of this cluster answered: x: y;"));
        assert!(foreign.contains("musterctl members") && !foreign.contains("is musterd up"));
        let attempts = vec![attempt(Miss::Foreign), attempt(Miss::Silent)];
        let known = CallError::unreachable("do it", Kind::Idempotent, attempts, false).to_string();
        assert!(known.contains("no node of this cluster answered: x: y; x: y; perhaps"), "{known}");
        assert!(known.contains("name a member with `-e ADDRESS`"), "{known}");
        assert!(!known.contains("musterctl members"), "it would ask the same nodes: {known}");
        assert_eq!(told(Kind::Once, Miss::Refused), "could not do it: x refused: y");
    }
}
