//! Errors of calls to etcd, classified.

use std::error::Error as _;
use std::iter;
use std::net::SocketAddr;
use std::time::Duration;

use tonic::{Code, Status};

/// A call that failed or was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("etcd at {endpoint}, {call}: {reason}")]
pub struct CallError {
    pub endpoint: SocketAddr,
    /// The gRPC method, such as `MemberAdd`.
    pub call: &'static str,
    pub kind: CallErrorKind,
    /// Message from etcd or from the connection.
    reason: String,
}

/// Class of a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallErrorKind {
    /// No connection, or it broke.
    Unreachable,
    /// No answer within the call's deadline; a change may have been made anyway.
    Deadline,
    /// The member knows no leader, the leader changed, or a majority did not answer in time.
    NoLeader,
    /// Fewer members are reachable than etcd requires for a membership change.
    Unhealthy,
    /// After the change, too few started members would be left for a quorum.
    NotEnoughStarted,
    /// The learner has not caught up yet.
    LearnerNotReady,
    /// etcd 3.4 and 3.5 allow one learner at a time.
    TooManyLearners,
    /// The member was already promoted.
    NotLearner,
    /// A learner does not support this call; only voters do.
    NotSupportedByLearner,
    MemberNotFound,
    /// A member with this peer URL exists. (etcd derives ids from peer URL, token and second: added
    /// twice within a second, it reports that the id exists.)
    MemberExists,
    /// Only the leader supports this call.
    NotLeader,
    /// The member named as the next leader cannot lead.
    BadTransferee,
    /// The backend quota is exhausted: compact, defragment, disarm.
    NoSpace,
    /// The members' data differ: stop and restore.
    Corrupt,
    /// The certificate does not permit this call.
    PermissionDenied,
    /// Anything else.
    Other,
}

impl CallError {
    pub(super) fn from_status(endpoint: SocketAddr, call: &'static str, status: &Status) -> Self {
        let kind = CallErrorKind::classify(status);
        // For a broken connection the status is only "transport error"; use the last cause.
        let causes = iter::successors(status.source(), |&error| error.source());
        let reason = causes.last().map_or_else(|| status.message().to_owned(), ToString::to_string);
        Self { endpoint, call, kind, reason }
    }

    pub(super) fn deadline(endpoint: SocketAddr, call: &'static str, after: Duration) -> Self {
        let reason = format!("no answer within {after:?}");
        Self { endpoint, call, kind: CallErrorKind::Deadline, reason }
    }

    pub(super) fn no_leader(endpoint: SocketAddr, call: &'static str) -> Self {
        let reason = "none of the endpoints is the leader".to_owned();
        Self { endpoint, call, kind: CallErrorKind::NoLeader, reason }
    }

    pub(super) fn reconnected(endpoint: SocketAddr, call: &'static str) -> Self {
        let reason = "the connection was lost between the read and the list".to_owned();
        Self { endpoint, call, kind: CallErrorKind::Unreachable, reason }
    }

    pub(super) fn malformed(endpoint: SocketAddr, call: &'static str, reason: &str) -> Self {
        Self { endpoint, call, kind: CallErrorKind::Other, reason: reason.to_owned() }
    }

    /// Reports whether the same call may succeed later without any intervention.
    pub fn is_transient(&self) -> bool {
        match self.kind {
            CallErrorKind::Unreachable
            | CallErrorKind::Deadline
            | CallErrorKind::NoLeader
            | CallErrorKind::Unhealthy
            | CallErrorKind::NotEnoughStarted
            | CallErrorKind::LearnerNotReady
            | CallErrorKind::TooManyLearners
            | CallErrorKind::NotSupportedByLearner
            | CallErrorKind::NotLeader => true,
            CallErrorKind::NotLearner
            | CallErrorKind::MemberNotFound
            | CallErrorKind::MemberExists
            | CallErrorKind::BadTransferee
            | CallErrorKind::NoSpace
            | CallErrorKind::Corrupt
            | CallErrorKind::PermissionDenied
            | CallErrorKind::Other => false,
        }
    }

    /// Reports whether the call may succeed on another member.
    pub(super) fn may_succeed_elsewhere(&self) -> bool {
        matches!(
            self.kind,
            CallErrorKind::Unreachable
                | CallErrorKind::Deadline
                | CallErrorKind::NoLeader
                | CallErrorKind::NotSupportedByLearner
        )
    }
}

/// Message parts and their classes. etcd's errors share a few gRPC codes, so only the text
/// distinguishes them: constants of `api/v3rpc/rpctypes/error.go`, unchanged from 3.4 to 3.6.
const KNOWN_ERRORS: &[(&str, CallErrorKind)] = &[
    ("can only promote a learner member which is in sync", CallErrorKind::LearnerNotReady),
    ("can only promote a learner member", CallErrorKind::NotLearner),
    ("too many learner members", CallErrorKind::TooManyLearners),
    ("rpc not supported for learner", CallErrorKind::NotSupportedByLearner),
    ("member not found", CallErrorKind::MemberNotFound),
    ("Peer URLs already exists", CallErrorKind::MemberExists),
    ("member ID already exist", CallErrorKind::MemberExists),
    ("not enough started members", CallErrorKind::NotEnoughStarted),
    ("unhealthy cluster", CallErrorKind::Unhealthy),
    ("bad leader transferee", CallErrorKind::BadTransferee),
    ("not leader", CallErrorKind::NotLeader),
    ("no leader", CallErrorKind::NoLeader),
    ("leader changed", CallErrorKind::NoLeader),
    ("request timed out", CallErrorKind::NoLeader),
    ("database space exceeded", CallErrorKind::NoSpace),
    ("corrupt cluster", CallErrorKind::Corrupt),
];

impl CallErrorKind {
    fn classify(status: &Status) -> Self {
        let known = KNOWN_ERRORS.iter().find(|(text, _)| status.message().contains(text));
        match (known, status.code()) {
            (Some((_, kind)), _) => *kind,
            (None, Code::Unavailable) => Self::Unreachable,
            // tonic's status for a connection that failed or broke.
            (None, Code::Unknown) if status.source().is_some() => Self::Unreachable,
            (None, Code::DeadlineExceeded | Code::Cancelled) => Self::Deadline,
            (None, Code::PermissionDenied | Code::Unauthenticated) => Self::PermissionDenied,
            (None, Code::DataLoss) => Self::Corrupt,
            (None, _) => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_with_the_same_code_are_told_apart() {
        let of = |code, text: &str| CallErrorKind::classify(&Status::new(code, text));
        let failed = Code::FailedPrecondition;
        assert_eq!(
            of(
                failed,
                "etcdserver: can only promote a learner member which is in sync with leader"
            ),
            CallErrorKind::LearnerNotReady
        );
        assert_eq!(
            of(failed, "etcdserver: can only promote a learner member"),
            CallErrorKind::NotLearner
        );
        assert_eq!(of(failed, "etcdserver: not leader"), CallErrorKind::NotLeader);
        assert_eq!(of(Code::Unavailable, "etcdserver: no leader"), CallErrorKind::NoLeader);
        assert_eq!(of(Code::Unavailable, "connection refused"), CallErrorKind::Unreachable);
        assert_eq!(of(Code::Internal, "what?"), CallErrorKind::Other);
    }
}
