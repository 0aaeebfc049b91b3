//! Why `musterd` ends, and with which exit code (docs/guide/cli.md lists them).

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use muster_config::ConfigError;

pub use muster_storage::BEGIN_ANEW;
use muster_types::error::chain;

/// Why `musterd` ended although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    #[error("read the configuration {}: is it there, and may this user read it?", path.display())]
    ReadConfig { path: PathBuf, source: std::io::Error },
    #[error("the configuration {} is not usable, nothing was changed", path.display())]
    Config { path: PathBuf, source: ConfigError },
    #[error("{0}")]
    Machine(String),
    #[error("the state directory {}: {problem}", path.display())]
    StateDir { path: PathBuf, problem: String },
    #[error("start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("{what}")]
    Start { what: &'static str, source: Box<dyn Error + Send + Sync> },
    #[error("the store of this node failed, so it serves nothing more: {0}")]
    Store(String),
    #[error("the task {0:?} ended, which it must not before the node stops")]
    TaskEnded(&'static str),
    #[error("the task {0:?} panicked")]
    Panicked(&'static str),
}

impl Fatal {
    /// Marks `source` as the failure of a start-up step.
    pub fn start(what: &'static str, source: impl Error + Send + Sync + 'static) -> Self {
        Self::Start { what, source: Box::new(source) }
    }

    /// Whether the configuration or the machine is unfit, so that starting again will not help.
    pub const fn is_unfit(&self) -> bool {
        match self {
            Self::ReadConfig { .. }
            | Self::Config { .. }
            | Self::Machine(_)
            | Self::StateDir { .. } => true,
            Self::Runtime(_)
            | Self::Start { .. }
            | Self::Store(_)
            | Self::TaskEnded(_)
            | Self::Panicked(_) => false,
        }
    }

    /// For people: one sentence, and for a configuration one more line for each of its problems.
    pub fn told(&self) -> String {
        match self {
            Self::Config { path, source } => {
                format!("{self}:\n{}", source.in_file(&path.display().to_string()))
            }
            other => chain(other),
        }
    }

    /// 78 (`EX_CONFIG` of sysexits.h): configuration or machine unfit, restarting will not help.
    /// 74 (`EX_IOERR`): the store failed. 70 (`EX_SOFTWARE`): a task ended. 71 (`EX_OSERR`): else.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Store(_) => 74,
            Self::TaskEnded(_) | Self::Panicked(_) => 70,
            Self::Runtime(_) | Self::Start { .. } => 71,
            Self::ReadConfig { .. }
            | Self::Config { .. }
            | Self::Machine(_)
            | Self::StateDir { .. } => 78,
        })
    }
}
