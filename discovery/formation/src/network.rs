//! The network interface that formation needs, and nothing else. It runs over an in-memory network
//! in tests, and over `muster_transport::endpoint` otherwise.

use std::future::Future;
use std::net::SocketAddr;

use muster_messages::hello::{BirthMessage, GreetReply, GreetRequest, JoinReply, JoinRequest};
use muster_types::PublicKey;

/// Reason why a peer did not answer; human-readable, with the address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreachable(pub String);

/// Opens sessions with other nodes. Every call ends within a bounded time.
pub trait Network: Send + Sync + 'static {
    type Session: Session;

    /// Dials an address; both sides prove the token.
    fn open(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = Result<Self::Session, Unreachable>> + Send;
}

/// A session with a peer that holds the token. Closed when dropped.
pub trait Session: Send + Sync + 'static {
    /// The peer's key, authenticated in the handshake.
    fn peer(&self) -> PublicKey;

    fn is_closed(&self) -> bool;

    fn greet(
        &self,
        request: GreetRequest,
    ) -> impl Future<Output = Result<GreetReply, Unreachable>> + Send;

    fn birth(
        &self,
        message: BirthMessage,
    ) -> impl Future<Output = Result<Vec<BirthMessage>, Unreachable>> + Send;

    fn join(
        &self,
        request: JoinRequest,
    ) -> impl Future<Output = Result<JoinReply, Unreachable>> + Send;
}
