//! Hello handler for tests.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use muster_messages::hello::{
    AnchorReply, BirthMessage, GreetReply, GreetRequest, JoinReply, JoinRequest, RenewReply,
};
use muster_pki::token::{Token, TokenId, Verifier};
use muster_transport::endpoint::Caller;
use muster_transport::hello::{AuthenticatedPeer, HelloHandler, Rejection};
use tonic::Status;

/// Hello handler that knows some tokens, gives prepared replies and records rejections. Several nodes
/// may share one.
#[derive(Debug)]
pub struct TestHelloHandler {
    pub tokens: Mutex<BTreeMap<TokenId, Verifier>>,
    pub rejections: Mutex<Vec<Rejection>>,
    pub peers: Mutex<Vec<AuthenticatedPeer>>,
    /// Reply to every `Anchor` call.
    pub anchor: Mutex<AnchorReply>,
    pub anchor_calls: AtomicUsize,
}

impl Default for TestHelloHandler {
    fn default() -> Self {
        let anchor = AnchorReply { cluster_name: "demo".to_owned(), ..AnchorReply::default() };
        Self {
            tokens: Mutex::default(),
            rejections: Mutex::default(),
            peers: Mutex::default(),
            anchor: Mutex::new(anchor),
            anchor_calls: AtomicUsize::new(0),
        }
    }
}

impl TestHelloHandler {
    pub fn accept_token(&self, token: &Token) {
        self.tokens.lock().unwrap().insert(token.id().clone(), token.verifier());
    }
}

#[tonic::async_trait]
impl HelloHandler for TestHelloHandler {
    async fn verifier(&self, token: &TokenId) -> Option<Verifier> {
        self.tokens.lock().unwrap().get(token).cloned()
    }

    async fn greet(
        &self,
        peer: AuthenticatedPeer,
        request: GreetRequest,
    ) -> Result<GreetReply, Status> {
        self.peers.lock().unwrap().push(peer);
        Ok(GreetReply { candidate: request.candidate, peers: vec![] })
    }

    async fn birth(
        &self,
        _: AuthenticatedPeer,
        message: BirthMessage,
    ) -> Result<Vec<BirthMessage>, Status> {
        Ok(vec![message])
    }

    async fn join(&self, _: AuthenticatedPeer, _: JoinRequest) -> Result<JoinReply, Status> {
        Ok(JoinReply::default())
    }

    async fn renew(&self, _: Caller) -> Result<RenewReply, Status> {
        Ok(RenewReply::default())
    }

    async fn anchor(&self, _: AuthenticatedPeer) -> Result<AnchorReply, Status> {
        self.anchor_calls.fetch_add(1, Ordering::SeqCst);
        Ok(self.anchor.lock().unwrap().clone())
    }

    fn on_rejection(&self, rejection: Rejection) {
        self.rejections.lock().unwrap().push(rejection);
    }
}
