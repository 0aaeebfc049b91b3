//! The QUIC endpoint of a node: one UDP socket, two ALPNs, gRPC over its streams, gossip in its
//! datagrams.
//!
//! It owns every session: `muster-node/1` between members, `muster-hello/1` with whoever holds the
//! token. It reads whom to believe from a watch ([`Trust`]) and ends the sessions of a member that
//! leaves. It never decides who is a member, and knows nothing of what the calls mean.
//!
//! TLS 1.3 only, without 0-RTT and without resumption: every session is a full handshake, so that
//! its keying material is its own and its peer was checked at its beginning. Connection migration is
//! allowed: a session belongs to a key, not to an address, and a node's address may change.

mod caller;
mod channel;
pub(crate) mod close;
mod deadline;
mod dial;
mod gate;
mod guard;
pub(crate) mod http2;
mod hush;
mod links;
mod misses;
mod owner;
mod pulse;
pub(crate) mod serve;
mod source;
mod tls;
mod transport;
mod trust;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_pki::identity::Identity;
use muster_types::{NodeId, PublicKey};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use caller::Caller;
pub use channel::NodeChannel;
pub use dial::DialError;
pub use http2::{Call as HelloChannel, Service, service};
pub use source::Source;
pub use transport::{HELLO_CALL, HELLO_IDLE, MAX_DATAGRAM, UNPROVEN};
pub use trust::{Directory, Peer, Trust};

use crate::hello::{HelloSession, Refused};
use channel::Lane;
use close::Close;
use owner::{Owner, Request};
use serve::Services;
use tls::Tls;

/// Requests to the owner that may wait; datagrams beyond it are dropped, calls wait their turn.
const INBOX: usize = 1024;

/// Received datagrams that may wait for gossip.
const MAILBOX: usize = 1024;

/// How long a stopping node waits for its goodbyes to leave.
const GOODBYE: Duration = Duration::from_millis(300);

/// What an endpoint is made of.
#[derive(Debug)]
pub struct Bind {
    /// Where to listen: one address, or the unspecified one for all. Port 0 takes any. Packets leave
    /// from the bound address.
    pub address: SocketAddr,
    /// The key that this end proves possession of in every handshake.
    pub identity: Arc<Identity>,
    /// Whom to believe; read at every handshake and call. The listener stops when its sender is
    /// gone.
    pub trust: watch::Receiver<Arc<Trust>>,
}

/// Why no endpoint could be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "UDP {0} is in use: another musterd, or another program; stop it or choose another port"
    )]
    InUse(SocketAddr),
    #[error("bind UDP {address}")]
    Socket { address: SocketAddr, source: io::Error },
}

/// A handle on the endpoint: to call members, to say hello to strangers, to send datagrams.
#[derive(Debug, Clone)]
pub struct Endpoint {
    quic: quinn::Endpoint,
    tls: Tls,
    me: PublicKey,
    inbox: mpsc::Sender<Request>,
    mailbox: Arc<watch::Sender<Option<serve::Inlet>>>,
}

/// Handshakes since the endpoint was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshakes {
    /// Begun by this node.
    pub dialled: u64,
    /// Begun by others and let in, whatever became of them.
    pub accepted: u64,
    /// Turned away before they cost anything.
    pub refused: u64,
}

/// The endpoint's own work, to be run once; until then nobody is let in and members cannot be
/// called. [`Endpoint::dial_hello`] works without it.
#[derive(Debug)]
#[must_use = "members are served and called only while the listener runs"]
pub struct Listener {
    quic: quinn::Endpoint,
    tls: Tls,
    me: PublicKey,
    trust: watch::Receiver<Arc<Trust>>,
    inbox: mpsc::Receiver<Request>,
    mailbox: serve::Mailbox,
    refusals: Option<mpsc::Sender<Refused>>,
}

impl Endpoint {
    /// Opens the socket. Must be called within a tokio runtime.
    pub fn bind(bind: Bind) -> Result<(Self, Listener), BindError> {
        let Bind { address, identity, trust } = bind;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(address),
            _ => BindError::Socket { address, source },
        };
        let socket = socket(address).map_err(failed)?;
        let config = transport::endpoint_config(&identity);
        let runtime = Arc::new(quinn::TokioRuntime);
        let quic = quinn::Endpoint::new(config, None, socket, runtime).map_err(failed)?;
        let (inbox, requests) = mpsc::channel(INBOX);
        let mailbox = Arc::new(watch::Sender::new(None));
        let tls = Tls::new(&identity, trust.clone());
        let me = identity.public_key();
        let listener = Listener {
            quic: quic.clone(),
            tls: tls.clone(),
            me,
            trust,
            inbox: requests,
            mailbox: mailbox.subscribe(),
            refusals: None,
        };
        Ok((Self { quic, tls, me, inbox, mailbox }, listener))
    }

    /// The address that the socket is bound to.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    /// Calls one member. All channels to one member share one connection and its stream for calls.
    pub fn channel(&self, peer: NodeId) -> NodeChannel {
        NodeChannel::new(peer, Lane::Calls, self.inbox.clone())
    }

    /// As [`Self::channel`], on a stream of its own with lower priority: for snapshots and other
    /// bulk that must not delay small calls.
    pub fn bulk_channel(&self, peer: NodeId) -> NodeChannel {
        NodeChannel::new(peer, Lane::Bulk, self.inbox.clone())
    }

    /// Opens a session with whoever answers at an address. Nothing is proved yet:
    /// [`HelloSession::prove`] comes next.
    pub async fn dial_hello(&self, address: SocketAddr) -> Result<HelloSession, DialError> {
        let config = self.tls.hello_client();
        let connection = dial::race(&self.quic, &config, &[address]).await?;
        let failed = |why| DialError::Failed { address, why };
        let shaken = tls::Shaken::of(connection).map_err(failed)?;
        let exporter = tls::exporter(&shaken.connection)
            .ok_or_else(|| failed("the session has no keying material".to_owned()))?;
        HelloSession::open(shaken.connection, exporter, self.me, shaken.peer.public_key)
            .await
            .map_err(|e| failed(http2::chain(&*e)))
    }

    /// The datagrams of members from now on, each with its sender as its certificate names it.
    /// Whoever asks last receives them.
    pub fn datagrams(&self) -> mpsc::Receiver<(NodeId, Bytes)> {
        let (sender, receiver) = mpsc::channel(MAILBOX);
        self.mailbox.send_replace(Some(sender));
        receiver
    }

    /// Sends at most [`MAX_DATAGRAM`] bytes to a member, unreliably. Never blocks: without a
    /// connection it is dialled in the background while a few datagrams wait; what does not fit is
    /// dropped.
    pub fn send_datagram(&self, peer: NodeId, datagram: Bytes) {
        self.datagram(peer, datagram, false);
    }

    /// As [`Self::send_datagram`], for what can be spared: it is dropped where it would need a
    /// connection while several are being made for datagrams of this kind. A group whose members all
    /// start on one busy machine would otherwise want them all at once, and none would be made in time.
    pub fn offer_datagram(&self, peer: NodeId, datagram: Bytes) {
        self.datagram(peer, datagram, true);
    }

    fn datagram(&self, peer: NodeId, datagram: Bytes, can_be_spared: bool) {
        if self.inbox.try_send(Request::Datagram { peer, datagram, can_be_spared }).is_err() {
            tracing::trace!(peer = %peer.short(), "datagram dropped");
        }
    }

    /// How many handshakes there were so far.
    pub fn handshakes(&self) -> Handshakes {
        let stats = self.quic.stats();
        Handshakes {
            dialled: stats.outgoing_handshakes,
            accepted: stats.accepted_handshakes,
            refused: stats.refused_handshakes,
        }
    }

    /// Closes every session and the socket, for users that run no [`Listener`].
    pub async fn close(&self) {
        Close::Done.close_all(&self.quic);
        // Peers that do not acknowledge the goodbye are not waited for.
        tokio::time::timeout(GOODBYE, self.quic.wait_idle()).await.ok();
    }
}

impl Listener {
    /// Tells of members that called what they may not.
    pub fn telling(self, refusals: mpsc::Sender<Refused>) -> Self {
        Self { refusals: Some(refusals), ..self }
    }

    /// Serves both ALPNs and keeps the connections to members, until told to stop; then closes all
    /// sessions and the socket.
    pub async fn run(self, hello: Service, node: Service, stop: CancellationToken) {
        let Self { quic, tls, me, trust, inbox, mailbox, refusals } = self;
        quic.set_server_config(Some(tls.server()));
        let services = Services { hello, node, trust, mailbox, refusals };
        Owner::new(quic.clone(), tls, me, services).run(inbox, stop).await;
        Close::Done.close_all(&quic);
        // Peers that do not acknowledge the goodbye are not waited for.
        tokio::time::timeout(GOODBYE, quic.wait_idle()).await.ok();
    }
}

fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // So that the unspecified address means IPv4 too; harmless for any other.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A burst of gossip or a snapshot must not overflow the kernel's default; it may grant less.
    socket.set_recv_buffer_size(1 << 20)?;
    socket.set_send_buffer_size(1 << 20)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
