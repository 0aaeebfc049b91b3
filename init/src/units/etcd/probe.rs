//! Probe of a running etcd: service, process and data on disk.

use std::time::Duration;

use muster_types::etcd::{DataState, EtcdGeneration};
use tokio::time::timeout;

use super::client::{CredentialsError, Deadlines, MemberClient, MemberHealth, Tls};
use super::dir::{EtcdDir, EtcdDirError};
use super::spec::EtcdSpec;

/// Timeout of each request.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Result of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProbeResult {
    /// Answers linearizable reads.
    Serving,
    /// Follows as a learner.
    Learner,
    /// Running but not serving: it has no leader, or is still starting. Holds etcd's reason.
    Waiting(String),
    /// Does not complete a TLS handshake. Holds the error.
    Silent(String),
}

/// Probes one member with the spec that it was started with.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    member: MemberClient,
    peer: std::net::SocketAddr,
    peer_tls: Tls,
    dir: EtcdDir,
    generation: EtcdGeneration,
}

impl Probe {
    pub(super) fn new(spec: &EtcdSpec, dir: &EtcdDir) -> Result<Self, CredentialsError> {
        let credentials = &spec.credentials;
        let deadlines = Deadlines { call: TIMEOUT, ..Deadlines::default() };
        let tls = Tls::new(&credentials.authorities, &credentials.client)?;
        Ok(Self {
            member: MemberClient::new(spec.client, &tls, deadlines),
            peer: spec.peer,
            peer_tls: Tls::new(&credentials.authorities, &credentials.peer)?,
            dir: dir.clone(),
            generation: spec.generation,
        })
    }

    /// Probes the service and the disk. Data that was seen before and is now deleted is lost,
    /// although the process still serves from memory and unlinked files.
    pub(super) async fn run(self) -> (ProbeResult, Result<DataState, EtcdDirError>) {
        let result = self.probe().await;
        let Self { dir, generation, .. } = self;
        let data = tokio::task::spawn_blocking(move || probe_data(&dir, generation)).await;
        // Cancelled only when the runtime shuts down.
        (result, data.unwrap_or(Ok(DataState::Absent)))
    }

    async fn probe(&self) -> ProbeResult {
        let error = match self.member.health().await {
            Ok(MemberHealth::Serving) => return ProbeResult::Serving,
            Ok(MemberHealth::Learner) => return ProbeResult::Learner,
            Err(error) => error,
        };
        // etcd serves clients only once it has a leader, but peers from the start. A handshake on
        // the peer port distinguishes a member that waits for its peers from one that hangs.
        match timeout(TIMEOUT, self.peer_tls.connect(self.peer)).await {
            Ok(Ok(_)) => ProbeResult::Waiting(error.to_string()),
            Ok(Err(error)) => ProbeResult::Silent(format!("etcd at {}: {error}", self.peer)),
            Err(_) => ProbeResult::Silent(format!(
                "etcd at {}: no handshake within {TIMEOUT:?}",
                self.peer
            )),
        }
    }
}

fn probe_data(dir: &EtcdDir, generation: EtcdGeneration) -> Result<DataState, EtcdDirError> {
    let known = dir.record_data(generation)?;
    Ok(match (known, dir.has_data(generation)?) {
        (true, true) => DataState::Present,
        (true, false) => DataState::Lost,
        (false, _) => DataState::Absent,
    })
}
