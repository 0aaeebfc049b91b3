//! `etcd`: the cluster's etcd.

mod alarms;
mod client_config;
mod defrag;
mod forfeit;
mod members;
mod snapshot;
mod status;

use std::time::Duration;

use clap::Subcommand;

use crate::connect::{Api, CallError};
use crate::failure::Failure;
use crate::files::FileError;
use crate::output::Output;

/// Look after the cluster's etcd
#[derive(Debug, Subcommand)]
pub(crate) enum Etcd {
    Members(members::Members),
    Status(status::Status),
    Snapshot(snapshot::Snapshot),
    Alarms(alarms::Alarms),
    Defrag(defrag::Defrag),
    ForfeitLeadership(forfeit::ForfeitLeadership),
    ClientConfig(client_config::ClientConfig),
}

/// What can go wrong here beyond a call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EtcdError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "the snapshot from {endpoint} broke off after {bytes} bytes: nothing was written: {why}"
    )]
    BrokenOff { endpoint: String, bytes: u64, why: String },
    #[error("the snapshot from {endpoint} stood still for {} s after {bytes} bytes: nothing was written; try another node with -n", waited.as_secs())]
    StoodStill { endpoint: String, bytes: u64, waited: Duration },
    #[error(
        "the snapshot from {endpoint} ({bytes} bytes) does not match the checksum at its end: \
         nothing was written; try again, or another node with -n"
    )]
    Damaged { endpoint: String, bytes: u64 },
    #[error(
        "the etcd of {node} does not answer ({why}), and nothing was done; `musterctl etcd status` \
         shows when it does"
    )]
    Silent { node: String, why: String },
    #[error("find the absolute path of {path}")]
    Path { path: String, source: std::io::Error },
}

impl Etcd {
    /// Whether `--node` means anything to it.
    pub(crate) fn is_about_one_node(&self) -> bool {
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

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::Etcd(error.into())
    }
}

/// An answer that cannot be.
fn senseless(api: &Api, message: &str) -> CallError {
    CallError::Senseless { endpoint: api.endpoint().to_owned(), message: message.to_owned() }
}

/// Bytes as people read them: `20.0 KiB`.
fn size(bytes: u64) -> String {
    let mut whole = bytes;
    let mut rest = 0;
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    while whole >= 1024 && unit + 1 < units.len() {
        rest = whole % 1024;
        whole /= 1024;
        unit += 1;
    }
    if unit == 0 {
        format!("{whole} B")
    } else {
        format!("{whole}.{} {}", rest * 10 / 1024, units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2_147_483_648, "2.0 GiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
