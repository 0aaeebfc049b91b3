//! Who is alive: SWIM membership and failure detection in QUIC datagrams, once there is a cluster.
//!
//! The directory (the registry that Raft holds) says who exists; gossip says only who answers. An
//! id that is not in the directory is ignored, one that leaves it is dropped at once, and one that
//! is in it and not seen is sought until it is. Liveness is never written to Raft.

pub mod core;
#[cfg(test)]
mod fuzz;
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
pub use run::{Datagrams, Driver, Gossip, Parts, View};
pub use settings::Settings;
pub use wire::{Card, MAX_DATAGRAM, WireError};

/// What this node believes of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Alive,
    /// Somebody had no answer from it; it may still object.
    Suspect,
    Down,
    /// In the directory and never heard of since this node started.
    Unknown,
}

impl From<foca::State> for State {
    fn from(state: foca::State) -> Self {
        match state {
            foca::State::Alive => Self::Alive,
            foca::State::Suspect => Self::Suspect,
            foca::State::Down => Self::Down,
        }
    }
}

/// A member as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liveness {
    pub state: State,
    /// The last datagram from itself; None when all is hearsay. This node itself: now.
    pub last_heard: Option<Instant>,
    /// Its present life; grows with each start. 0 while unknown.
    pub generation: Generation,
    /// What it says of itself: addresses, version, config version.
    pub card: Option<Card>,
}
