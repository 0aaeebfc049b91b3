//! `cluster`: clusters of processes on this machine.

mod create;
mod destroy;
mod error;
mod find;
mod list;
mod run;
mod show;
mod start;
mod stop;

use std::time::Duration;

use clap::Subcommand;

use super::failure::Failure;
use crate::context::ContextStore;
use crate::output::Output;

/// Run a whole cluster on this machine, on loopback addresses
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    Create(create::Create),
    List(list::List),
    Show(show::Show),
    Start(start::Start),
    Stop(stop::Stop),
    Destroy(destroy::Destroy),
}

impl ClusterCommand {
    pub(crate) async fn run(
        self,
        store: &ContextStore,
        timeout: Option<Duration>,
        out: &mut Output<'_>,
    ) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(store, timeout, out).await,
            Self::List(list) => list.run(store, out),
            Self::Show(show) => show.run(store, out),
            Self::Start(start) => start.run(store, timeout, out).await,
            Self::Stop(stop) => stop.run(store, out).await,
            Self::Destroy(destroy) => destroy.run(store, out).await,
        }
    }
}
