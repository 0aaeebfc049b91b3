//! Dialler's side of the protocol.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use muster_messages::hello::ProveRequest;
use muster_pki::proof::Side;
use muster_pki::token::{Token, TokenId, Verifier};
use muster_services::hello::hello_client::HelloClient as Generated;
use muster_types::text::sanitize;
use muster_types::wire::{MAX_HELLO_MESSAGE, MAX_MESSAGE};
use muster_types::{NodeId, PublicKey};
use tonic::{Code, Status};

use super::session::transcript;
use crate::endpoint::{DialError, DialledSession, Endpoint, StreamChannel};

/// Generated client over a hello session.
pub type HelloClient = Generated<StreamChannel>;

/// Reasons why a token proof failed.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The peer does not know the token, or the proof was wrong for it. It does not reveal which.
    #[error(
        "{remote} refused the token {token}: it holds another token, or this one was revoked, has \
         expired or is used up; compare `machine.token` on both nodes"
    )]
    Rejected { remote: SocketAddr, token: TokenId },
    /// The peer accepted our proof but could not give its own, so it does not hold the token. Send
    /// it nothing more.
    #[error("{remote} does not hold the token {token}; possible man-in-the-middle")]
    Impostor { remote: SocketAddr, token: TokenId },
    #[error("cannot prove the token {token} to {remote}: {}", sanitize(status.message()))]
    Failed { remote: SocketAddr, token: TokenId, status: Box<Status> },
}

/// Session with a listener on `muster-hello/1`. It closes when dropped, and about three seconds
/// after the listener falls silent. Calls obey the deadline that `tonic::Request::set_timeout`
/// sets.
#[derive(Debug)]
pub struct HelloSession {
    session: DialledSession,
    is_proven: AtomicBool,
}

impl Endpoint {
    /// Opens a session with the peer at an address. No token is proved yet: call
    /// [`HelloSession::prove`] next.
    pub async fn dial_hello(&self, address: SocketAddr) -> Result<HelloSession, DialError> {
        let session = self.dial(address).await?;
        Ok(HelloSession { session, is_proven: AtomicBool::new(false) })
    }
}

impl HelloSession {
    /// Returns the listener's key, proved in the handshake.
    pub fn peer(&self) -> PublicKey {
        self.session.binding().listener
    }

    /// Returns the listener's node id.
    pub fn node_id(&self) -> NodeId {
        muster_pki::identity::node_id(&self.peer())
    }

    pub fn remote(&self) -> SocketAddr {
        self.session.remote()
    }

    /// Returns the session's keying material that proofs bind, the same on both sides.
    pub fn exporter(&self) -> [u8; 32] {
        self.session.binding().exporter
    }

    /// Returns the session for other generated clients.
    pub fn channel(&self) -> StreamChannel {
        self.session.channel()
    }

    /// Returns true if both sides have proved the token to each other.
    pub fn is_proven(&self) -> bool {
        self.is_proven.load(Ordering::Acquire)
    }

    /// Returns true if the session has ended.
    pub fn is_closed(&self) -> bool {
        self.session.is_closed()
    }

    /// Proves the token to the listener, then checks the listener's proof of it.
    pub async fn prove(&self, token: &Token) -> Result<(), ProveError> {
        self.prove_with(token.id(), &token.verifier()).await
    }

    /// Like [`Self::prove`], for callers that hold only a verifier.
    pub async fn prove_with(&self, token: &TokenId, verifier: &Verifier) -> Result<(), ProveError> {
        let remote = self.remote();
        let transcript = transcript(self.session.binding(), token.clone());
        let token = || token.clone();
        let proof = verifier.prove(Side::Dialer, &transcript).to_vec();
        let request = ProveRequest { token_id: token().to_string(), proof };
        let reply = self.client().prove(request).await.map_err(|status| match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => {
                ProveError::Rejected { remote, token: token() }
            }
            _ => ProveError::Failed { remote, token: token(), status: Box::new(status) },
        })?;
        if !verifier.check(Side::Listener, &transcript, &reply.into_inner().proof) {
            self.session.deny();
            return Err(ProveError::Impostor { remote, token: token() });
        }
        self.is_proven.store(true, Ordering::Release);
        Ok(())
    }

    /// Returns a client for calls over this session. Before the proof only `Prove` and `Renew` are
    /// answered. Until then the listener's messages are limited as tightly as ours.
    pub fn client(&self) -> HelloClient {
        let limit = if self.is_proven() { MAX_MESSAGE } else { MAX_HELLO_MESSAGE };
        Generated::new(self.channel()).max_decoding_message_size(limit)
    }
}
