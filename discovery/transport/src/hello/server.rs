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

use super::{Door, Guest, Refused, RefusedWhy, Session, bounds};
use crate::endpoint::{self, Caller, Service};

/// Hello service in front of a [`Door`].
#[derive(Clone)]
pub struct Server {
    door: Arc<dyn Door>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Server {
    pub fn new(door: Arc<dyn Door>) -> Self {
        Self { door }
    }

    /// Returns the service for [`crate::endpoint::Listener::run`], with the size limit for
    /// messages of unauthenticated peers.
    pub fn service(self) -> Service {
        endpoint::service(HelloServer::new(self).max_decoding_message_size(MAX_HELLO_MESSAGE))
    }

    /// Returns the authenticated peer of a request. The endpoint has already rejected all others.
    /// The check is repeated here because the handler must never see an unauthenticated peer. A
    /// token that was revoked or has expired since the proof ends the session.
    async fn guest<T>(&self, request: &Request<T>) -> Result<Guest, Status> {
        let session = Session::of(request)?;
        let caller = Caller::of(request)?.clone();
        let token = session.proven().ok_or_else(denied)?;
        if self.door.still_admits(&token).await {
            return Ok(Guest { caller, token });
        }
        self.refuse(&caller, session, Some(token), RefusedWhy::UnknownToken);
        Err(denied())
    }

    /// Reports the rejection to the audit log and closes the session. Reveals nothing to the peer.
    fn refuse(&self, caller: &Caller, session: &Session, token: Option<TokenId>, why: RefusedWhy) {
        session.deny();
        let Caller { remote, public_key, .. } = *caller;
        self.door.refused(Refused { remote, public_key, token, why });
    }
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
            self.refuse(&caller, &session, None, RefusedWhy::NotAToken);
            return Err(denied());
        };
        let Some(verifier) = self.door.verifier(&token).await else {
            self.refuse(&caller, &session, Some(token), RefusedWhy::UnknownToken);
            return Err(denied());
        };
        let transcript = session.transcript(token.clone());
        if !verifier.check(Side::Dialer, &transcript, &proof) {
            self.refuse(&caller, &session, Some(token), RefusedWhy::WrongProof);
            return Err(denied());
        }
        if !session.accept(token) {
            return Err(denied());
        }
        let proof = verifier.prove(Side::Listener, &transcript).to_vec();
        Ok(Response::new(ProveReply { proof }))
    }

    async fn greet(&self, request: Request<GreetRequest>) -> Result<Response<GreetReply>, Status> {
        let guest = self.guest(&request).await?;
        let request = request.into_inner();
        bounds::greet(&request)?;
        self.door.greet(guest, request).await.map(Response::new)
    }

    async fn birth(&self, request: Request<BirthRequest>) -> Result<Response<BirthReply>, Status> {
        let guest = self.guest(&request).await?;
        let missing = || Status::invalid_argument("the birth request contains no message");
        let message = request.into_inner().message.ok_or_else(missing)?;
        let messages = self.door.birth(guest, message).await?;
        Ok(Response::new(BirthReply { messages }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let guest = self.guest(&request).await?;
        let request = request.into_inner();
        bounds::join(&request)?;
        self.door.join(guest, request).await.map(Response::new)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let caller = Caller::of(&request)?.clone();
        self.door.renew(caller).await.map(Response::new)
    }

    async fn anchor(
        &self,
        request: Request<AnchorRequest>,
    ) -> Result<Response<AnchorReply>, Status> {
        let guest = self.guest(&request).await?;
        self.door.anchor(guest).await.map(Response::new)
    }
}
