//! Replies that every API gives for the same failure. It knows no call.

use tonic::Status;

use crate::raft::GroupError;

/// Converts an error of the group to `UNAVAILABLE`.
pub(super) fn unavailable(error: &GroupError) -> Status {
    Status::unavailable(error.to_string())
}
