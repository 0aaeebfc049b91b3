//! Work inside a host's network namespace.

use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Host;

/// Runs `work` on a separate thread in the host's network namespace, with a single-threaded
/// runtime: every socket that it opens belongs to the host.
pub fn inside<T, F>(host: &Host, work: impl FnOnce() -> F + Send) -> Result<T>
where
    T: Send,
    F: Future<Output = Result<T>>,
{
    let path = host.namespace_path();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            enter_network(&path)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work())
        });
        thread.join().unwrap_or_else(|_| Err(anyhow!("a client in the lab panicked")))
    })
}

/// Moves this thread into a network namespace. Other threads stay where they are.
pub fn enter_network(namespace: &Path) -> Result<()> {
    let file =
        std::fs::File::open(namespace).with_context(|| format!("open {}", namespace.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("enter {}", namespace.display()))?;
    Ok(())
}
