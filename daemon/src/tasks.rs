//! Named tasks of one owner. Reports the first one that ends; never restarts any.

use std::collections::HashMap;
use std::future::Future;

use tokio::task::{Id, JoinSet};
use tracing::{Instrument, error, info_span};

/// Set of named tasks. None of them may end before the node stops.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// Spawns a task under this name.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.set.spawn(task.instrument(info_span!("task", name)));
        self.names.insert(handle.id(), name);
    }

    /// Waits for the next task to end. Returns its name, and true if it panicked.
    pub async fn next_exit(&mut self) -> Option<(&'static str, bool)> {
        let (id, panicked) = match self.set.join_next_with_id().await? {
            Ok((id, ())) => (id, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        Some((self.names.get(&id).copied().unwrap_or("?"), panicked))
    }

    /// Waits for all tasks to end.
    pub async fn drain(&mut self) {
        while let Some((name, panicked)) = self.next_exit().await {
            if panicked {
                error!(name, "task panicked during shutdown");
            }
        }
    }
}
