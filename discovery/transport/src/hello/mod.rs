//! `muster-hello/1`: what two machines say to each other before they share a certificate.
//!
//! [`Server`] speaks the protocol: it checks the proof of the token, refuses everything else before
//! it, and bounds what comes in. What the answers are is decided behind a [`Door`], by the birth or
//! by the daemon. [`HelloSession`] is the dialler's side.

pub mod bounds;
mod client;
mod server;
mod session;

use std::fmt;
use std::net::SocketAddr;

use muster_messages::hello::{
    AnchorReply, BirthMessage, GreetReply, GreetRequest, JoinReply, JoinRequest, RenewReply,
};
use muster_pki::token::{TokenId, Verifier};
use muster_types::PublicKey;
use tonic::Status;

use crate::endpoint::Caller;

pub use client::{HelloClient, HelloSession, ProveError};
pub use server::Server;
pub use session::{Session, Standing};

/// A peer that has proved a token on this session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    pub caller: Caller,
    pub token: TokenId,
}

/// Someone who was refused; for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub remote: SocketAddr,
    pub public_key: PublicKey,
    /// The token it claimed, if what it sent was a token id.
    pub token: Option<TokenId>,
    pub why: RefusedWhy,
}

/// Why someone was refused. The one refused is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedWhy {
    /// What it sent is not a token id.
    NotAToken,
    /// No token of this id is valid here: unknown, revoked, expired or used up.
    UnknownToken,
    /// The token is known; the proof is wrong.
    WrongProof,
    /// A worker called what only control-plane members may: it runs something else than `musterd`.
    NotForWorkers,
    /// It was removed from the cluster, and asked for a certificate.
    Removed,
}

impl fmt::Display for RefusedWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAToken => "the token id is malformed",
            Self::UnknownToken => "no token of this id is valid here",
            Self::WrongProof => "the proof of the token is wrong",
            Self::NotForWorkers => "a worker called what only control-plane members may",
            Self::Removed => "a removed node asked for a certificate",
        })
    }
}

/// What stands behind the hello protocol. Only [`Door::renew`] and [`Door::verifier`] are reached by
/// peers that have proved nothing.
#[tonic::async_trait]
pub trait Door: Send + Sync + 'static {
    /// What proofs of this token are checked by; `None` when it is not valid now.
    async fn verifier(&self, token: &TokenId) -> Option<Verifier>;

    /// Whether a guest that has proved this token may go on. A token that has been revoked since or
    /// has expired opens nothing any more; one that is used up still serves its last guest.
    async fn still_admits(&self, token: &TokenId) -> bool {
        self.verifier(token).await.is_some()
    }

    /// Two candidates introduce themselves. The request is within the bounds that the contract
    /// states.
    async fn greet(&self, guest: Guest, request: GreetRequest) -> Result<GreetReply, Status>;

    /// One message of the birth protocol, and what is answered at once.
    async fn birth(&self, guest: Guest, message: BirthMessage)
    -> Result<Vec<BirthMessage>, Status>;

    /// Admission of a node. The request is within the bounds that the contract states.
    async fn join(&self, guest: Guest, request: JoinRequest) -> Result<JoinReply, Status>;

    /// A new certificate for a member, known by its key alone.
    async fn renew(&self, caller: Caller) -> Result<RenewReply, Status>;

    /// What an operator is to pin.
    async fn anchor(&self, guest: Guest) -> Result<AnchorReply, Status>;

    /// Someone was refused. Must not wait.
    fn refused(&self, refused: Refused);
}
