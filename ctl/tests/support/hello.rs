//! Server side of the first contact.

use std::net::SocketAddr;
use std::sync::Arc;

use muster_messages::hello::{
    AnchorReply, BirthMessage, Candidate, GreetReply, GreetRequest, JoinReply, JoinRequest,
    RenewReply,
};
use muster_pki::identity::Identity;
use muster_pki::token::{TokenId, Verifier};
use muster_services::operator::operator_server::OperatorServer;
use muster_transport::endpoint::{self, Bind, Caller, Endpoint, Trust};
use muster_transport::hello::{self, AuthenticatedPeer, HelloHandler, Rejection};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Cluster;
use super::operator::ScriptedOperator;

pub(super) fn serve(runtime: &Runtime, address: SocketAddr, cluster: Arc<Cluster>) {
    let trust = watch::Sender::new(Arc::new(Trust::default()));
    let bind = Bind { address, identity: Arc::new(Identity::generate()), trust: trust.subscribe() };
    let (_endpoint, listener) = Endpoint::bind(bind).unwrap();
    let hello = hello::Server::new(Arc::new(ScriptedHello(Arc::clone(&cluster)))).service();
    // No member ever calls this; the other protocol just needs some service.
    let node = endpoint::service(OperatorServer::new(ScriptedOperator(cluster)));
    runtime.handle().spawn_running(listener.run(hello, node, CancellationToken::new()), trust);
}

/// Runs a task until the runtime is dropped, and keeps `with` alive as long.
trait SpawnRunning {
    fn spawn_running<T: Send + 'static>(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
        with: T,
    );
}

impl SpawnRunning for tokio::runtime::Handle {
    fn spawn_running<T: Send + 'static>(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
        with: T,
    ) {
        self.spawn(async move {
            task.await;
            drop(with);
        });
    }
}

struct ScriptedHello(Arc<Cluster>);

#[tonic::async_trait]
impl HelloHandler for ScriptedHello {
    async fn verifier(&self, token: &TokenId) -> Option<Verifier> {
        let known = self.0.token.lock().unwrap();
        (known.id() == token).then(|| known.verifier())
    }

    async fn greet(&self, _: AuthenticatedPeer, _: GreetRequest) -> Result<GreetReply, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn birth(
        &self,
        _: AuthenticatedPeer,
        _: BirthMessage,
    ) -> Result<Vec<BirthMessage>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn join(&self, _: AuthenticatedPeer, _: JoinRequest) -> Result<JoinReply, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn renew(&self, _: Caller) -> Result<RenewReply, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn anchor(&self, _: AuthenticatedPeer) -> Result<AnchorReply, Status> {
        let cluster = &self.0;
        cluster.received.lock().unwrap().anchor_calls += 1;
        let waiting_for = cluster.script.lock().unwrap().waiting_for.clone();
        let node = Candidate {
            name: "cp-1".to_owned(),
            role: "control-plane".to_owned(),
            version: "0.1.0".to_owned(),
            waiting_for: waiting_for.clone().unwrap_or_default(),
            ..Candidate::default()
        };
        Ok(match waiting_for {
            Some(_) => AnchorReply { node: Some(node), ..AnchorReply::default() },
            None => AnchorReply {
                node: Some(node),
                cluster_id: cluster.id.to_vec(),
                cluster_name: "demo".to_owned(),
                machine_authorities: vec![cluster.machine.certificate().to_vec()],
                peers: Vec::new(),
            },
        })
    }

    fn on_rejection(&self, _: Rejection) {}
}
