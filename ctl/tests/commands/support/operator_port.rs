//! TCP side of the operator API: the real TLS, then gRPC.

use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use muster_kit::now;
use muster_pki::bundle::TrustBundle;
use muster_pki::identity::Identity;
use muster_pki::leaf::{self, Profile};
use muster_pki::tls::{Credentials, TrustSource, operator_server_config};
use muster_services::operator::operator_server::OperatorServer;
use muster_types::{NodeId, Role};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::Cluster;
use super::operator::ScriptedOperator;

/// Credentials of a control-plane node.
struct Certified(Arc<Credentials>);

impl TrustSource for Certified {
    fn is_member(&self, _: &NodeId) -> bool {
        true
    }

    fn credentials(&self) -> Option<Arc<Credentials>> {
        Some(Arc::clone(&self.0))
    }
}

fn certify(cluster: &Cluster) -> Certified {
    let identity = Identity::generate();
    let profile = Profile::Node { id: identity.node_id(), role: Role::ControlPlane };
    let key = identity.public_key().into();
    let leaf = leaf::issue(&cluster.machine, &profile, &key, now()).unwrap();
    let bundle = TrustBundle::new(vec![cluster.machine.certificate().clone()]).unwrap();
    Certified(Arc::new(Credentials::new(&identity, leaf.chain, bundle).unwrap()))
}

pub(super) fn serve(runtime: &Runtime, listener: TcpListener, cluster: Arc<Cluster>) {
    let trust_source = Arc::new(certify(&cluster));
    let known = Arc::clone(&cluster);
    let config = operator_server_config(trust_source, move |key| {
        known.operators.lock().unwrap().contains(key)
    });
    let acceptor = TlsAcceptor::from(Arc::new(config));
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let (sender, connections) = mpsc::channel(16);
    runtime.spawn(async move {
        let mut handshakes = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            handshakes.spawn(async move {
                // A client whose handshake fails gets a TLS alert.
                if let Ok(stream) = acceptor.accept(stream).await {
                    sender.send(Connection(stream)).await.ok();
                }
            });
        }
    });
    let incoming = ReceiverStream::new(connections).map(Ok::<_, io::Error>);
    let service = OperatorServer::new(ScriptedOperator(cluster));
    runtime.spawn(Server::builder().serve_with_incoming(service, incoming));
}

struct Connection(TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
