//! Probe of a running etcd: service, process and data on disk.

use std::time::Duration;

use tokio::time::timeout;

use super::client::{CredentialsError, Deadlines, Health, Member, Tls};
use super::home::{Home, HomeError};
use super::spec::{Generation, Spec};

/// Timeout of each request.
const ANSWER: Duration = Duration::from_secs(2);

/// Result of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sight {
    /// Answers linearizable reads.
    Serving,
    /// Follows as a learner.
    Learner,
    /// Running but not serving: it has no leader, or is still starting. Holds etcd's reason.
    Waiting(String),
    /// Does not complete a TLS handshake. Holds the error.
    Silent(String),
}

/// Data on disk, as probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDisk {
    /// Never seen.
    NotYet,
    There,
    /// Seen before, now deleted. The process still serves from memory and unlinked files.
    Gone,
}

/// Probes one member with the spec that it was started with.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    member: Member,
    peer: std::net::SocketAddr,
    peer_tls: Tls,
    home: Home,
    generation: Generation,
}

impl Probe {
    pub(super) fn new(spec: &Spec, home: &Home) -> Result<Self, CredentialsError> {
        let credentials = &spec.credentials;
        let deadlines = Deadlines { call: ANSWER, ..Deadlines::default() };
        let tls = Tls::new(&credentials.authorities, &credentials.client)?;
        Ok(Self {
            member: Member::new(spec.client, &tls, deadlines),
            peer: spec.peer,
            peer_tls: Tls::new(&credentials.authorities, &credentials.peer)?,
            home: home.clone(),
            generation: spec.generation,
        })
    }

    pub(super) async fn look(self) -> (Sight, Result<OnDisk, HomeError>) {
        let sight = self.sight().await;
        let Self { home, generation, .. } = self;
        let data = tokio::task::spawn_blocking(move || look_at_data(&home, generation)).await;
        // Cancelled only when the runtime shuts down.
        (sight, data.unwrap_or(Ok(OnDisk::NotYet)))
    }

    async fn sight(&self) -> Sight {
        let unserved = match self.member.health().await {
            Ok(Health::Serving) => return Sight::Serving,
            Ok(Health::Learner) => return Sight::Learner,
            Err(error) => error,
        };
        // etcd serves clients only once it has a leader, but peers from the start. A handshake on
        // the peer port distinguishes a member that waits for its peers from one that hangs.
        match timeout(ANSWER, self.peer_tls.connect(self.peer)).await {
            Ok(Ok(_)) => Sight::Waiting(unserved.to_string()),
            Ok(Err(error)) => Sight::Silent(format!("etcd at {}: {error}", self.peer)),
            Err(_) => {
                Sight::Silent(format!("etcd at {}: no handshake within {ANSWER:?}", self.peer))
            }
        }
    }
}

fn look_at_data(home: &Home, generation: Generation) -> Result<OnDisk, HomeError> {
    let known = home.note_data(generation)?;
    Ok(match (known, home.has_data(generation)?) {
        (true, true) => OnDisk::There,
        (true, false) => OnDisk::Gone,
        (false, _) => OnDisk::NotYet,
    })
}
