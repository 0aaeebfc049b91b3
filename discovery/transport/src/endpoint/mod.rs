//! The QUIC endpoint of a node: one UDP socket, two ALPNs, gRPC over its streams, gossip in its
//! datagrams.
//!
//! It owns every session: `muster-node/1` between members, `muster-hello/1` with peers that the
//! protocol on top authenticates ([`SessionAuthorizer`]). It reads credentials and directory from a watch ([`Trust`]) and ends the sessions of a
//! member that leaves. It never decides membership, and knows nothing of what the calls mean.
//!
//! TLS 1.3 only, without 0-RTT and without resumption. Every session is a full handshake, so its
//! keying material is unique and its peer was checked when it began. Connection migration is
//! allowed: a session belongs to a key, not to an address, and a node's address may change.

mod auth;
mod close;
mod connections;
mod parameters;
mod rpc;
mod sessions;
mod tls;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_pki::identity::Identity;
use muster_types::error::chain;
use muster_types::{NodeId, PublicKey};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use auth::{
    AuthState, ChannelBinding, RejectReason, Rejection, SessionAuthorizer, SessionService,
};
pub use connections::channel::NodeChannel;
pub use connections::dial::DialError;
pub use parameters::{HELLO_CALL_TIMEOUT, HELLO_IDLE_TIMEOUT, MAX_DATAGRAM, PROOF_TIMEOUT};
pub use rpc::caller::Caller;
pub use rpc::http2::{Service, StreamChannel, service};
pub use sessions::dialled::DialledSession;
pub use tls::trust::{Directory, Peer, Trust, WatchedTrust};

use close::CloseCode;
use connections::dial;
use connections::peer::Lane;
use connections::request::EndpointRequest;
use sessions::manager::SessionManager;
use sessions::serve::{DatagramSender, DatagramSink, Services};
use tls::Tls;
use tls::handshake::Handshake;

/// Capacity of the request queue. When it is full, datagrams are dropped and calls wait.
const REQUEST_QUEUE: usize = 1024;

/// Received datagrams that may queue for gossip.
const DATAGRAM_QUEUE: usize = 1024;

/// Time that a stopping node allows for its close frames to be sent.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);

/// Parameters of an endpoint.
#[derive(Debug)]
pub struct Bind {
    /// Local address, or the unspecified one for all. Port 0 takes any. Packets leave from the
    /// bound address.
    pub address: SocketAddr,
    /// Key that this end proves possession of in every handshake.
    pub identity: Arc<Identity>,
    /// Credentials and directory, read at every handshake and call. The task keeps the last
    /// value when the sender is gone.
    pub trust: watch::Receiver<Arc<Trust>>,
}

/// Reasons why the endpoint cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "UDP {0} is in use by another musterd or another program; stop it or choose another port"
    )]
    InUse(SocketAddr),
    #[error("cannot bind UDP {address}")]
    Socket { address: SocketAddr, source: io::Error },
}

/// Handle to the endpoint: calls members, opens hello sessions and sends datagrams.
#[derive(Debug, Clone)]
pub struct Endpoint {
    quic: quinn::Endpoint,
    tls: Tls,
    me: PublicKey,
    inbox: mpsc::Sender<EndpointRequest>,
    datagram_sink: Arc<watch::Sender<Option<DatagramSender>>>,
}

/// Number of handshakes since the endpoint was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeCounts {
    /// Started by this node.
    pub dialled: u64,
    /// Started by peers and accepted; includes those that failed later.
    pub accepted: u64,
    /// Rejected at the first packet.
    pub rejected: u64,
}

/// Task of the endpoint; it is run once. Until it runs, no session is accepted and members cannot
/// be called. [`Endpoint::dial`] works without it.
#[derive(Debug)]
#[must_use = "members are served and called only while the endpoint task runs"]
pub struct EndpointTask {
    quic: quinn::Endpoint,
    tls: Tls,
    me: PublicKey,
    trust: watch::Receiver<Arc<Trust>>,
    inbox: mpsc::Receiver<EndpointRequest>,
    datagram_sink: DatagramSink,
    rejections: Option<mpsc::Sender<Rejection>>,
}

impl Endpoint {
    /// Opens the socket. Must be called within a tokio runtime.
    pub fn bind(bind: Bind) -> Result<(Self, EndpointTask), BindError> {
        let Bind { address, identity, trust } = bind;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(address),
            _ => BindError::Socket { address, source },
        };
        let socket = socket(address).map_err(failed)?;
        let config = parameters::endpoint_config(&identity);
        let runtime = Arc::new(quinn::TokioRuntime);
        let quic = quinn::Endpoint::new(config, None, socket, runtime).map_err(failed)?;
        let (inbox, requests) = mpsc::channel(REQUEST_QUEUE);
        let datagram_sink = Arc::new(watch::Sender::new(None));
        let tls = Tls::new(&identity, trust.clone());
        let me = identity.public_key();
        let task = EndpointTask {
            quic: quic.clone(),
            tls: tls.clone(),
            me,
            trust,
            inbox: requests,
            datagram_sink: datagram_sink.subscribe(),
            rejections: None,
        };
        Ok((Self { quic, tls, me, inbox, datagram_sink }, task))
    }

    /// Returns the address that the socket is bound to.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    /// Returns a channel to one member. All channels to one member share one connection and its
    /// stream for calls.
    pub fn channel(&self, peer: NodeId) -> NodeChannel {
        NodeChannel::new(peer, Lane::Calls, self.inbox.clone())
    }

    /// Like [`Self::channel`], on a separate stream with lower priority. For snapshots and other
    /// bulk transfers that must not delay small calls.
    pub fn bulk_channel(&self, peer: NodeId) -> NodeChannel {
        NodeChannel::new(peer, Lane::Bulk, self.inbox.clone())
    }

    /// Opens a session with the peer at an address. Any key is accepted; nothing is proved yet.
    pub async fn dial(&self, address: SocketAddr) -> Result<DialledSession, DialError> {
        let config = self.tls.hello_client_config();
        let connection = dial::race(&self.quic, &config, &[address]).await?;
        let failed = |why| DialError::Failed { address, why };
        let handshake = Handshake::of(connection).map_err(failed)?;
        DialledSession::open(handshake, self.me).await.map_err(|e| failed(chain(&*e)))
    }

    /// Returns the receiver of members' datagrams, each with the sender that its certificate names.
    /// Only the latest receiver gets datagrams.
    pub fn datagrams(&self) -> mpsc::Receiver<(NodeId, Bytes)> {
        let (sender, receiver) = mpsc::channel(DATAGRAM_QUEUE);
        self.datagram_sink.send_replace(Some(sender));
        receiver
    }

    /// Sends at most [`MAX_DATAGRAM`] bytes to a member, unreliably. Never blocks. Without a
    /// connection it dials in the background; a few datagrams wait meanwhile, the others are
    /// dropped.
    pub fn send_datagram(&self, peer: NodeId, datagram: Bytes) {
        self.datagram(peer, datagram, false);
    }

    /// Like [`Self::send_datagram`], for optional datagrams. Drops the datagram if it needs a new
    /// connection while several others are being dialled for optional datagrams. If all members
    /// start together on a busy machine, they would otherwise all dial at once and every dial would
    /// time out.
    pub fn send_optional_datagram(&self, peer: NodeId, datagram: Bytes) {
        self.datagram(peer, datagram, true);
    }

    fn datagram(&self, peer: NodeId, datagram: Bytes, is_optional: bool) {
        if self.inbox.try_send(EndpointRequest::Datagram { peer, datagram, is_optional }).is_err() {
            tracing::trace!(peer = %peer.short(), "datagram dropped");
        }
    }

    /// Returns the number of handshakes so far.
    pub fn handshakes(&self) -> HandshakeCounts {
        let stats = self.quic.stats();
        HandshakeCounts {
            dialled: stats.outgoing_handshakes,
            accepted: stats.accepted_handshakes,
            rejected: stats.refused_handshakes,
        }
    }

    /// Closes every session and the socket, for callers that run no [`EndpointTask`].
    pub async fn close(&self) {
        CloseCode::Done.close_all(&self.quic);
        // Peers that do not acknowledge the close frame are not waited for.
        tokio::time::timeout(CLOSE_TIMEOUT, self.quic.wait_idle()).await.ok();
    }
}

impl EndpointTask {
    /// Reports rejected calls of members to `rejections`.
    pub fn with_rejections(self, rejections: mpsc::Sender<Rejection>) -> Self {
        Self { rejections: Some(rejections), ..self }
    }

    /// Serves both ALPNs and keeps the connections to members until `stop`; then closes all
    /// sessions and the socket.
    pub async fn run<A: SessionAuthorizer>(
        self,
        hello: SessionService<A>,
        node: Service,
        stop: CancellationToken,
    ) {
        let Self { quic, tls, me, trust, inbox, datagram_sink, rejections } = self;
        quic.set_server_config(Some(tls.server()));
        let services = Services { hello, node, trust, datagram_sink, rejections };
        SessionManager::new(quic.clone(), tls, me, services).run(inbox, stop).await;
        CloseCode::Done.close_all(&quic);
        // Peers that do not acknowledge the close frame are not waited for.
        tokio::time::timeout(CLOSE_TIMEOUT, quic.wait_idle()).await.ok();
    }
}

fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // The unspecified address then accepts IPv4 too; no effect for any other address.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // The kernel's default is too small for a burst of gossip or a snapshot; it may grant less.
    socket.set_recv_buffer_size(1 << 20)?;
    socket.set_send_buffer_size(1 << 20)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
