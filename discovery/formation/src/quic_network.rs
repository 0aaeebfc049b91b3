//! The real network: hello sessions over the QUIC endpoint.

use std::net::SocketAddr;

use muster_messages::hello::{
    BirthMessage, BirthRequest, GreetReply, GreetRequest, JoinReply, JoinRequest,
};
use muster_pki::token::Token;
use muster_types::PublicKey;
use tonic::Status;

use super::network::{Network, Session, Unreachable};
use muster_transport::endpoint::Endpoint;
use muster_transport::hello::HelloSession;
use muster_types::text::sanitize;

/// The QUIC endpoint with the token to prove.
#[derive(Debug)]
pub struct QuicNetwork {
    endpoint: Endpoint,
    token: Token,
}

impl QuicNetwork {
    pub fn new(endpoint: Endpoint, token: Token) -> Self {
        Self { endpoint, token }
    }
}

fn refused(session: &HelloSession, status: &Status) -> Unreachable {
    Unreachable(format!("{} answered: {}", session.remote(), sanitize(status.message())))
}

impl Network for QuicNetwork {
    type Session = HelloSession;

    async fn open(&self, address: SocketAddr) -> Result<HelloSession, Unreachable> {
        let dialled = self.endpoint.dial_hello(address).await;
        let session = dialled.map_err(|error| Unreachable(error.to_string()))?;
        let proved = session.prove(&self.token).await;
        proved.map_err(|error| Unreachable(error.to_string()))?;
        Ok(session)
    }
}

impl Session for HelloSession {
    fn peer(&self) -> PublicKey {
        self.peer()
    }

    fn is_closed(&self) -> bool {
        self.is_closed()
    }

    async fn greet(&self, request: GreetRequest) -> Result<GreetReply, Unreachable> {
        let reply = self.client().greet(request).await;
        reply.map(tonic::Response::into_inner).map_err(|status| refused(self, &status))
    }

    async fn birth(&self, message: BirthMessage) -> Result<Vec<BirthMessage>, Unreachable> {
        let request = BirthRequest { message: Some(message) };
        let reply = self.client().birth(request).await;
        reply.map(|reply| reply.into_inner().messages).map_err(|status| refused(self, &status))
    }

    async fn join(&self, request: JoinRequest) -> Result<JoinReply, Unreachable> {
        let reply = self.client().join(request).await;
        reply.map(tonic::Response::into_inner).map_err(|status| refused(self, &status))
    }
}
