//! Liveness: SWIM membership and failure detection in QUIC datagrams, once there is a cluster.
//!
//! The directory (the registry that Raft holds) defines the members; gossip only reports which of
//! them answer. An id outside the directory is ignored, and one that leaves it is dropped at once.
//! A member of the directory that is not seen is searched for until it is. Liveness is never
//! written to Raft.

pub mod engine;
mod identity;
mod outbox;
mod roster;
mod run;
mod settings;
pub mod simulation;
mod wire;

use std::time::Instant;

pub use identity::Generation;
pub use roster::Roster;
pub use run::{DatagramTransport, Gossip, GossipParams, GossipTask, LivenessView};
pub use settings::Settings;
pub use wire::{MAX_DATAGRAM, NodeMeta, WireError};

/// Liveness of a member, as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LivenessState {
    Alive,
    /// Did not answer some member's probe; it may still refute.
    Suspect,
    Down,
    /// In the directory, and not heard of since this node started.
    Unknown,
}

impl From<foca::State> for LivenessState {
    fn from(state: foca::State) -> Self {
        match state {
            foca::State::Alive => Self::Alive,
            foca::State::Suspect => Self::Suspect,
            foca::State::Down => Self::Down,
        }
    }
}

/// Member as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liveness {
    pub state: LivenessState,
    /// Time of the last datagram from the member itself; None when all is known through others. For
    /// this node itself: now.
    pub last_heard: Option<Instant>,
    /// Its current generation; grows with each start. 0 while unknown.
    pub generation: Generation,
    /// Metadata that it publishes: addresses, version, config version.
    pub meta: Option<NodeMeta>,
}
