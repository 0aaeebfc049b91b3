//! `etcd`: the cluster's etcd.

mod alarms;
mod client_config;
mod defrag;
mod error;
mod forfeit;
mod members;
mod snapshot;
mod status;

use clap::Subcommand;

use crate::cli::failure::Failure;
use crate::client::Api;
use crate::output::Output;

/// Operate the cluster's etcd
#[derive(Debug, Subcommand)]
pub(crate) enum EtcdCommand {
    Members(members::Members),
    Status(status::Status),
    Snapshot(snapshot::Snapshot),
    Alarms(alarms::Alarms),
    Defrag(defrag::Defrag),
    ForfeitLeadership(forfeit::ForfeitLeadership),
    ClientConfig(client_config::ClientConfig),
}

impl EtcdCommand {
    /// Returns true if `--node` applies to this command.
    pub(crate) fn takes_node(&self) -> bool {
        match self {
            Self::Status(_) | Self::Snapshot(_) | Self::Defrag(_) | Self::ForfeitLeadership(_) => {
                true
            }
            Self::Members(_) | Self::Alarms(_) | Self::ClientConfig(_) => false,
        }
    }

    pub(crate) async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        match self {
            Self::Members(members) => members.run(api, out).await,
            Self::Status(status) => status.run(api, out).await,
            Self::Snapshot(snapshot) => snapshot.run(api, out).await,
            Self::Alarms(alarms) => alarms.run(api, out).await,
            Self::Defrag(defrag) => defrag.run(api, out).await,
            Self::ForfeitLeadership(forfeit) => forfeit.run(api, out).await,
            Self::ClientConfig(client_config) => client_config.run(api, out).await,
        }
    }
}
