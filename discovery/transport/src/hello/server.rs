//! Listener's side of the protocol.

use std::fmt;
use std::sync::Arc;

use muster_messages::hello::{
    AnchorReply, AnchorRequest, BirthReply, BirthRequest, GreetReply, GreetRequest, JoinReply,
    JoinRequest, ProveReply, ProveRequest, RenewReply, RenewRequest,
};
use muster_pki::proof::Side;
use muster_pki::token::TokenId;
use muster_services::hello::hello_server::{Hello, HelloServer};
use muster_types::wire::MAX_HELLO_MESSAGE;
use tonic::{Request, Response, Status};

use super::{AuthenticatedPeer, HelloHandler, RejectReason, Rejection, Session, validate};
use crate::endpoint::{self, Caller, SessionService};

/// Hello service in front of a [`HelloHandler`].
#[derive(Clone)]
pub struct Server {
    handler: Arc<dyn HelloHandler>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Server {
    pub fn new(handler: Arc<dyn HelloHandler>) -> Self {
        Self { handler }
    }

    /// Returns the service for [`crate::endpoint::EndpointTask::run`], with the size limit for
    /// messages of unauthenticated peers.
    pub fn service(self) -> SessionService<Session> {
        service(HelloServer::new(self).max_decoding_message_size(MAX_HELLO_MESSAGE))
    }

    /// Returns the authenticated peer of a request. The endpoint has already rejected all others.
    /// The check is repeated here because the handler must never see an unauthenticated peer. A
    /// token that was revoked or has expired since the proof ends the session.
    async fn authenticated_peer<T>(
        &self,
        request: &Request<T>,
    ) -> Result<AuthenticatedPeer, Status> {
        let session = Session::of(request)?;
        let caller = Caller::of(request)?.clone();
        let token = session.proven_token().ok_or_else(denied)?;
        if self.handler.is_still_valid(&token).await {
            return Ok(AuthenticatedPeer { caller, token });
        }
        self.reject(&caller, session, Some(token), RejectReason::UnknownToken);
        Err(denied())
    }

    /// Reports the rejection to the audit log and closes the session. Reveals nothing to the peer.
    fn reject(
        &self,
        caller: &Caller,
        session: &Session,
        token: Option<TokenId>,
        reason: RejectReason,
    ) {
        session.deny();
        let Caller { remote, public_key, .. } = *caller;
        self.handler.on_rejection(Rejection { remote, public_key, token, reason });
    }
}

/// Wraps any generated hello server, with its message limits set. Its calls are authorised by
/// [`Session`].
pub fn service<T: Hello>(server: HelloServer<T>) -> SessionService<Session> {
    SessionService::new(endpoint::service(server), Session::new)
}

/// Returns the uniform rejection: no reason is revealed.
fn denied() -> Status {
    Status::permission_denied("")
}

#[tonic::async_trait]
impl Hello for Server {
    async fn prove(&self, request: Request<ProveRequest>) -> Result<Response<ProveReply>, Status> {
        let caller = Caller::of(&request)?.clone();
        let session = Session::of(&request)?.clone();
        let ProveRequest { token_id, proof } = request.into_inner();
        let Ok(token) = token_id.parse::<TokenId>() else {
            self.reject(&caller, &session, None, RejectReason::NotAToken);
            return Err(denied());
        };
        let Some(verifier) = self.handler.verifier(&token).await else {
            self.reject(&caller, &session, Some(token), RejectReason::UnknownToken);
            return Err(denied());
        };
        let transcript = session.transcript(token.clone());
        if !verifier.check(Side::Dialer, &transcript, &proof) {
            self.reject(&caller, &session, Some(token), RejectReason::WrongProof);
            return Err(denied());
        }
        if !session.authenticate(token) {
            return Err(denied());
        }
        let proof = verifier.prove(Side::Listener, &transcript).to_vec();
        Ok(Response::new(ProveReply { proof }))
    }

    async fn greet(&self, request: Request<GreetRequest>) -> Result<Response<GreetReply>, Status> {
        let peer = self.authenticated_peer(&request).await?;
        let request = request.into_inner();
        validate::greet(&request)?;
        self.handler.greet(peer, request).await.map(Response::new)
    }

    async fn birth(&self, request: Request<BirthRequest>) -> Result<Response<BirthReply>, Status> {
        let peer = self.authenticated_peer(&request).await?;
        let missing = || Status::invalid_argument("the birth request contains no message");
        let message = request.into_inner().message.ok_or_else(missing)?;
        let messages = self.handler.birth(peer, message).await?;
        Ok(Response::new(BirthReply { messages }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let peer = self.authenticated_peer(&request).await?;
        let request = request.into_inner();
        validate::join(&request)?;
        self.handler.join(peer, request).await.map(Response::new)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let caller = Caller::of(&request)?.clone();
        self.handler.renew(caller).await.map(Response::new)
    }

    async fn anchor(
        &self,
        request: Request<AnchorRequest>,
    ) -> Result<Response<AnchorReply>, Status> {
        let peer = self.authenticated_peer(&request).await?;
        self.handler.anchor(peer).await.map(Response::new)
    }
}
