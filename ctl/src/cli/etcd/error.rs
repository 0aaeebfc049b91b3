//! Errors of the `etcd` commands, except failed calls.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::failure::{CommandError, ExitCode};
use crate::files::FileError;

/// Error of an `etcd` command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EtcdError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "snapshot of {node} from {endpoint} was cut off after {bytes} bytes: {why}\n\
         {left}"
    )]
    Interrupted { node: String, endpoint: String, bytes: u64, why: String, left: &'static str },
    #[error(
        "snapshot of {node} from {endpoint} stalled: no data for {} s after {bytes} bytes\n\
         {left}\n\
         try: another node with -n",
        waited.as_secs()
    )]
    Stalled { node: String, endpoint: String, bytes: u64, waited: Duration, left: &'static str },
    #[error(
        "snapshot of {node} from {endpoint} ({bytes} bytes) does not match the checksum at its end\n\
         {left}\n\
         try: again, or another node with -n"
    )]
    ChecksumMismatch { node: String, endpoint: String, bytes: u64, left: &'static str },
    #[error(
        "the etcd of {node} does not answer ({why})\n\
         nothing was done\n\
         try: `musterctl etcd status` until it answers"
    )]
    NoAnswer { node: String, why: String },
    #[error(
        "{} has credentials of another cluster\n\
         nothing was written\n\
         try: another directory with --out",
        directory.display()
    )]
    OtherCluster { directory: PathBuf },
    #[error(
        "a snapshot is not written to a terminal\n\
         try: a file name, or redirect the output"
    )]
    Terminal,
    #[error("write the snapshot to standard output; what was written is incomplete")]
    StandardOutput(#[source] io::Error),
    #[error("resolve path {path}")]
    Path { path: String, source: io::Error },
}

impl CommandError for EtcdError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoAnswer { .. } => ExitCode::NotReady,
            Self::Terminal => ExitCode::Usage,
            Self::File(_)
            | Self::OtherCluster { .. }
            | Self::StandardOutput(_)
            | Self::Interrupted { .. }
            | Self::Stalled { .. }
            | Self::ChecksumMismatch { .. }
            | Self::Path { .. } => ExitCode::Failed,
        }
    }
}
