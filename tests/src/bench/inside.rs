//! Clients that live in a namespace of the lab.

use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::lab::Host;

/// Runs `work` on a thread of its own in the host's network namespace, with a runtime of its own
/// that has no other thread: every socket that it opens is the host's.
pub fn inside<T, F>(host: &Host, work: impl FnOnce() -> F + Send) -> Result<T>
where
    T: Send,
    F: Future<Output = Result<T>>,
{
    let path = host.namespace_path();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            enter(&path)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work())
        });
        thread.join().unwrap_or_else(|_| Err(anyhow!("a client of the bench panicked")))
    })
}

fn enter(path: &Path) -> Result<()> {
    let namespace =
        std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("enter {}", path.display()))?;
    Ok(())
}
