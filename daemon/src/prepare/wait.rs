//! Waiting for conditions that time can resolve, before the node is started. Each attempt checks
//! everything again.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{Checked, check};
use crate::args::Args;
use crate::fatal::Fatal;
use crate::ports::LogIntervals;

/// Interval of the attempts. One runs `etcd --version` at most.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Reason why a node cannot start now.
#[derive(Debug)]
pub enum NotReady {
    Fatal(Fatal),
    /// A condition that time can resolve. Reads well after "waiting for".
    Awaited(String),
}

impl From<Fatal> for NotReady {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

impl NotReady {
    /// The error of a node that must not wait.
    pub fn into_fatal(self) -> Fatal {
        match self {
            Self::Fatal(fatal) => fatal,
            Self::Awaited(condition) => {
                Fatal::Machine(format!("this node would wait for {condition}"))
            }
        }
    }
}

/// Waits until this node can start. `attempt` is the result of the first check. Cancel-safe.
pub async fn wait(args: &Args, mut attempt: Result<Checked, NotReady>) -> Result<Checked, Fatal> {
    let mut log = WaitLog::default();
    loop {
        match attempt {
            Ok(checked) => {
                log.on_ready();
                checked.log_warnings();
                return Ok(checked);
            }
            Err(NotReady::Fatal(fatal)) => return Err(fatal),
            Err(NotReady::Awaited(condition)) => log.on_awaited(&condition),
        }
        sleep(RETRY_INTERVAL).await;
        let args = args.clone();
        attempt = match tokio::task::spawn_blocking(move || check(args)).await {
            Ok(attempt) => attempt,
            Err(_) => return Err(Fatal::TaskPanicked("start check")),
        };
    }
}

/// Log of the awaited condition: at once, then at growing intervals.
#[derive(Debug, Default)]
struct WaitLog {
    condition: Option<String>,
    intervals: LogIntervals,
}

impl WaitLog {
    fn on_awaited(&mut self, condition: &str) {
        if self.condition.as_deref() != Some(condition) {
            self.condition = Some(condition.to_owned());
            self.intervals = LogIntervals::default();
        }
        if self.intervals.is_due(Instant::now()) {
            warn!(waiting_for = condition, "cannot start yet");
        }
    }

    fn on_ready(&self) {
        if self.condition.is_some() {
            info!("nothing more to wait for");
        }
    }
}
