//! `muster-hello/1`: the protocol between two machines that share no certificate yet.
//!
//! [`Server`] speaks the protocol. It checks the token proof, rejects every other call before it,
//! and validates the input ([`validate`]). The implementation of [`HelloHandler`] (birth or the daemon) decides the
//! replies. [`HelloSession`] is the dialler's side.

mod client;
mod server;
mod session;
pub mod validate;

use muster_messages::hello::{
    AnchorReply, BirthMessage, GreetReply, GreetRequest, JoinReply, JoinRequest, RenewReply,
};
use muster_pki::token::{TokenId, Verifier};
use tonic::Status;

use crate::endpoint::Caller;

pub use crate::endpoint::{RejectReason, Rejection};
pub use client::{HelloClient, HelloSession, ProveError};
pub use server::{Server, service};
pub use session::Session;

/// Peer that has proved a token on this session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticatedPeer {
    pub caller: Caller,
    pub token: TokenId,
}

/// Handler of the hello protocol. Unauthenticated peers reach only [`HelloHandler::renew`] and
/// [`HelloHandler::verifier`].
#[tonic::async_trait]
pub trait HelloHandler: Send + Sync + 'static {
    /// Returns the verifier of this token's proofs; `None` when the token is not valid now.
    async fn verifier(&self, token: &TokenId) -> Option<Verifier>;

    /// Returns true if a peer that proved this token may continue. A token that was revoked or
    /// expired since then is no longer accepted. A used-up token still serves the peer that used it
    /// last.
    async fn is_still_valid(&self, token: &TokenId) -> bool {
        self.verifier(token).await.is_some()
    }

    /// Exchanges greetings between two candidates. The request is within the bounds of the
    /// contract.
    async fn greet(
        &self,
        peer: AuthenticatedPeer,
        request: GreetRequest,
    ) -> Result<GreetReply, Status>;

    /// Handles one message of the birth protocol; returns the immediate replies.
    async fn birth(
        &self,
        peer: AuthenticatedPeer,
        message: BirthMessage,
    ) -> Result<Vec<BirthMessage>, Status>;

    /// Admits a node. The request is within the bounds of the contract.
    async fn join(
        &self,
        peer: AuthenticatedPeer,
        request: JoinRequest,
    ) -> Result<JoinReply, Status>;

    /// Renews the certificate of a member, authenticated by its key alone.
    async fn renew(&self, caller: Caller) -> Result<RenewReply, Status>;

    /// Returns the anchor for an operator to pin.
    async fn anchor(&self, peer: AuthenticatedPeer) -> Result<AnchorReply, Status>;

    /// Reports a rejection. Must not block.
    fn on_rejection(&self, rejection: Rejection);
}
