//! Interface to sessions whose peer no certificate authenticates: the protocol on top of
//! `muster-hello/1` decides which peer is authenticated, and the endpoint enforces it. Knows no proof and
//! no call of that protocol.

use std::fmt;
use std::net::SocketAddr;

use muster_pki::token::TokenId;
use muster_types::PublicKey;
use tokio::sync::watch;

use super::rpc::http2::Service;

/// Decides which calls a session may make that no certificate authenticates. Its handle is put into
/// the extensions of every request of the session.
pub trait SessionAuthorizer: Clone + Send + Sync + 'static {
    /// Returns true if the peer may make this call now. `path` is the full gRPC method.
    fn may_call(&self, path: &str) -> bool;

    /// Counts a call that was allowed.
    fn count_call(&self);

    /// Returns the state. The endpoint closes a session that stays [`AuthState::Pending`] for too
    /// long or becomes [`AuthState::Denied`].
    fn state(&self) -> watch::Receiver<AuthState>;
}

/// Result of a session's authentication so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthState {
    /// Not yet authenticated.
    Pending,
    Authenticated,
    /// Rejected, permanently; the session is about to be closed.
    Denied,
}

/// Facts of one session that a proof must bind, the same on both sides (RFC 9266).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChannelBinding {
    /// The connection's keying material under `muster_pki::proof::EXPORTER_LABEL`.
    pub exporter: [u8; 32],
    pub dialer: PublicKey,
    pub listener: PublicKey,
}

impl fmt::Debug for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelBinding")
            .field("dialer", &self.dialer)
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// Handler of the calls of unauthenticated peers, with the authentication state of each session.
#[derive(Debug, Clone)]
pub struct SessionService<A> {
    pub(crate) service: Service,
    /// Creates the state of a new session.
    pub(crate) begin: fn(ChannelBinding) -> A,
}

impl<A: SessionAuthorizer> SessionService<A> {
    /// `service` handles the calls; `begin` creates the state of a new session.
    pub fn new(service: Service, begin: fn(ChannelBinding) -> A) -> Self {
        Self { service, begin }
    }
}

/// Rejected attempt, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub remote: SocketAddr,
    pub public_key: PublicKey,
    /// Token it claimed; None if it sent no well-formed token id.
    pub token: Option<TokenId>,
    pub reason: RejectReason,
}

/// Reason of a rejection. It is never sent to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// The token id is malformed.
    NotAToken,
    /// No valid token has this id: unknown, revoked, expired or used up.
    UnknownToken,
    /// The token is known; the proof is wrong.
    WrongProof,
    /// A worker made a call reserved for control-plane members: it does not run an unmodified
    /// `musterd`.
    NotForWorkers,
    /// A removed node asked for a certificate.
    Removed,
}

impl fmt::Display for RejectReason {
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
