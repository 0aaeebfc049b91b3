//! Failure of a command, and the exit code of each error. The text is the error's own.

use std::error::Error;
use std::{fmt, io};

use muster_types::error::chain;

use crate::client::CallError;
use crate::context::ContextError;
use crate::files::FileError;

/// Exit code of a failed command. `docs/guide/cli.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExitCode {
    Failed = 1,
    /// The code that clap uses for a wrong command line.
    Usage = 2,
    NotReady = 3,
    Unreachable = 4,
    Refused = 5,
    /// `EX_CONFIG` of sysexits.h.
    Config = 78,
}

/// Error that ends a command.
pub(crate) trait CommandError: Error {
    fn exit_code(&self) -> ExitCode;
}

/// Reason why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Command(Box<dyn CommandError>),
    /// The output could not be written.
    Output(io::Error),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Command(error) => error.exit_code(),
            Self::Output(_) => ExitCode::Failed,
        }
    }

    /// Returns true if the reader closed the pipe, as in `musterctl audit | head`.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(error) => error.fmt(f),
            Self::Output(_) => f.write_str("write the output"),
        }
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Command(error) => error.source(),
            Self::Output(error) => Some(error),
        }
    }
}

impl<E: CommandError + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Command(Box::new(error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl CommandError for ContextError {
    fn exit_code(&self) -> ExitCode {
        ExitCode::Config
    }
}

impl CommandError for FileError {
    fn exit_code(&self) -> ExitCode {
        ExitCode::Failed
    }
}

impl CommandError for CallError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Context(_) | Self::NoEndpoint | Self::NoToken => ExitCode::Config,
            Self::Unreachable { .. } | Self::OutcomeUnknown { .. } => ExitCode::Unreachable,
            Self::Refused { .. } => ExitCode::Refused,
            Self::NotReady { .. } | Self::NoCluster { .. } => ExitCode::NotReady,
            Self::NoSuchNode { .. } | Self::Failed { .. } | Self::InvalidReply { .. } => {
                ExitCode::Failed
            }
        }
    }
}

/// First line of an error and its causes: the failure without possible causes and next step.
pub(crate) fn summary(error: &dyn Error) -> String {
    chain(error).lines().next().unwrap_or_default().to_owned()
}
