//! Fatal errors of `musterd`, and the exit code of each (listed in docs/guide/cli.md).

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use muster_config::ConfigError;

pub use muster_storage::REINITIALISE;
use muster_types::error::chain;

/// Reason for an exit of `musterd` that was not requested.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    #[error("cannot read the configuration {}", path.display())]
    ReadConfig { path: PathBuf, source: std::io::Error },
    #[error("invalid configuration {}; nothing was changed", path.display())]
    Config { path: PathBuf, source: ConfigError },
    #[error("{0}")]
    Machine(String),
    #[error("state directory {}: {problem}", path.display())]
    StateDir { path: PathBuf, problem: String },
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("cannot {what}")]
    Start { what: &'static str, source: Box<dyn Error + Send + Sync> },
    #[error("Raft store failed; this node has stopped serving: {0}")]
    Store(String),
    #[error("task {0} exited unexpectedly")]
    TaskExited(&'static str),
    #[error("task {0} panicked")]
    TaskPanicked(&'static str),
}

impl Fatal {
    /// Wraps `source` as the failure of the start-up step `what`.
    pub fn start(what: &'static str, source: impl Error + Send + Sync + 'static) -> Self {
        Self::Start { what, source: Box::new(source) }
    }

    /// Returns true if the configuration or the machine must be fixed first, so that a restart
    /// cannot help.
    pub const fn is_config_error(&self) -> bool {
        match self {
            Self::ReadConfig { .. }
            | Self::Config { .. }
            | Self::Machine(_)
            | Self::StateDir { .. } => true,
            Self::Runtime(_)
            | Self::Start { .. }
            | Self::Store(_)
            | Self::TaskExited(_)
            | Self::TaskPanicked(_) => false,
        }
    }

    /// Formats the error for an operator: one line, plus one line for each configuration problem.
    pub fn operator_message(&self) -> String {
        match self {
            Self::Config { path, source } => {
                format!("{self}:\n{}", source.in_file(&path.display().to_string()))
            }
            other => chain(other),
        }
    }

    /// Exit code as in sysexits.h. 78 (`EX_CONFIG`): configuration or machine must be fixed first.
    /// 74 (`EX_IOERR`): store failed. 70 (`EX_SOFTWARE`): task exited. 71 (`EX_OSERR`): other.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Store(_) => 74,
            Self::TaskExited(_) | Self::TaskPanicked(_) => 70,
            Self::Runtime(_) | Self::Start { .. } => 71,
            Self::ReadConfig { .. }
            | Self::Config { .. }
            | Self::Machine(_)
            | Self::StateDir { .. } => 78,
        })
    }
}
