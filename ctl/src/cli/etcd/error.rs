//! Errors of the `etcd` commands, except failed calls.

use std::io;
use std::time::Duration;

use crate::cli::failure::{CommandError, ExitCode};
use crate::files::FileError;

/// Error of an `etcd` command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EtcdError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "snapshot from {endpoint} was cut off after {bytes} bytes: {why}\n\
         nothing was written"
    )]
    Interrupted { endpoint: String, bytes: u64, why: String },
    #[error(
        "snapshot from {endpoint} stalled: no data for {} s after {bytes} bytes\n\
         nothing was written\n\
         try: another node with -n",
        waited.as_secs()
    )]
    Stalled { endpoint: String, bytes: u64, waited: Duration },
    #[error(
        "snapshot from {endpoint} ({bytes} bytes) does not match the checksum at its end\n\
         nothing was written\n\
         try: again, or another node with -n"
    )]
    ChecksumMismatch { endpoint: String, bytes: u64 },
    #[error(
        "the etcd of {node} does not answer ({why})\n\
         nothing was done\n\
         try: `musterctl etcd status` until it answers"
    )]
    NoAnswer { node: String, why: String },
    #[error("resolve path {path}")]
    Path { path: String, source: io::Error },
}

impl CommandError for EtcdError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoAnswer { .. } => ExitCode::NotReady,
            Self::File(_)
            | Self::Interrupted { .. }
            | Self::Stalled { .. }
            | Self::ChecksumMismatch { .. }
            | Self::Path { .. } => ExitCode::Failed,
        }
    }
}
