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

use crate::client::{Api, CallError};
use crate::failure::Failure;
use crate::files::FileError;
use crate::output::Output;

/// Operate the cluster's etcd
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

/// Error of an `etcd` command, except a failed call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EtcdError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "snapshot from {endpoint} was cut off after {bytes} bytes: {why}\n\
         nothing was written"
    )]
    Interrupted { endpoint: String, bytes: u64, why: String },
    #[error(
        "snapshot from {endpoint} stalled: no data for {} s after {bytes} bytes\n\
         nothing was written\n\
         try: another node with -n",
        waited.as_secs()
    )]
    Stalled { endpoint: String, bytes: u64, waited: Duration },
    #[error(
        "snapshot from {endpoint} ({bytes} bytes) does not match the checksum at its end\n\
         nothing was written\n\
         try: again, or another node with -n"
    )]
    ChecksumMismatch { endpoint: String, bytes: u64 },
    #[error(
        "the etcd of {node} does not answer ({why})\n\
         nothing was done\n\
         try: `musterctl etcd status` until it answers"
    )]
    NoAnswer { node: String, why: String },
    #[error("resolve path {path}")]
    Path { path: String, source: std::io::Error },
}

impl Etcd {
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

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::Etcd(error.into())
    }
}

/// Error for a reply that no correct node sends.
fn invalid_reply(api: &Api, message: &str) -> CallError {
    CallError::InvalidReply { endpoint: api.endpoint().to_owned(), message: message.to_owned() }
}

/// Formats a number of bytes: `20.0 KiB`.
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
