//! Decides from the status of a failed call what comes next. Makes no calls.

use std::error::Error;
use std::iter;

use muster_types::error::chain;
use muster_types::wire::NOT_BEGUN_METADATA;
use tonic::{Code, ConnectError, Status};

use super::error::{Attempt, CallError, CallKind, FailureKind};

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
    // tonic's server ends a call at the same deadline, with `Cancelled`.
    let is_cut_off = matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled);
    if status.source().is_some() || is_cut_off {
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
            let refusal = Attempt { endpoint, why: message, failure: FailureKind::Rejected };
            NextStep::Fail(CallError::Refused { what, refusals: vec![refusal] })
        }
        // A node that answers "not now" may have begun anyway, unless it says that it has not.
        code if is_retryable(code) && kind == CallKind::NonIdempotent && !has_not_begun(status) => {
            NextStep::Fail(CallError::OutcomeUnknown { what, endpoint, why: message })
        }
        code if is_retryable(code) => {
            NextStep::RetryLater(CallError::NotReady { what, kind, endpoint, message })
        }
        _ => NextStep::Fail(CallError::Failed { what, endpoint, message }),
    }
}

/// Returns true if the node says that the call has not begun.
fn has_not_begun(status: &Status) -> bool {
    status.metadata().contains_key(NOT_BEGUN_METADATA)
}

/// Returns true if another node, or the same one later, may succeed.
const fn is_retryable(code: Code) -> bool {
    matches!(code, Code::Unavailable)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn broken(error: impl Error + Send + Sync + 'static) -> Status {
        Status::from_error(Box::new(error))
    }

    /// Regression: the server's end of the deadline sometimes came first, and was a final answer.
    #[test]
    fn a_call_that_was_cut_off_has_no_answer() {
        for status in [Status::deadline_exceeded("x"), Status::cancelled("Timeout expired")] {
            let step = classify(&status, CallKind::NonIdempotent, "do it", "cp-1");
            assert!(matches!(step, NextStep::Fail(CallError::OutcomeUnknown { .. })));
            let step = classify(&status, CallKind::Idempotent, "do it", "cp-1");
            assert!(matches!(step, NextStep::TryNext(_)));
        }
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
        let mut certain = Status::unavailable("no leader");
        certain.metadata_mut().insert(NOT_BEGUN_METADATA, "true".parse().unwrap());
        let step = classify(&certain, CallKind::NonIdempotent, "do it", "cp-1");
        let NextStep::RetryLater(error) = step else { panic!("it has not begun: retry") };
        assert_eq!(
            error.to_string(),
            "could not do it, and nothing was done: cp-1 is not ready: no leader"
        );
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
}
