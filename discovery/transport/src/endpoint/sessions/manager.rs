//! Task that owns every session: it accepts and rejects sessions, assigns calls to connections and
//! dials members. Other code reaches it by messages and watches.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_pki::identity::node_id;
use muster_types::{NodeId, PublicKey};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::proof::{ProofOutcome, WatchedSession};
use super::serve::{ServedConnection, Services};
use crate::endpoint::auth::{ChannelBinding, SessionAuthorizer};
use crate::endpoint::close::{CloseCode, DisconnectReason};
use crate::endpoint::connections::dead_peer::CHECK_INTERVAL;
use crate::endpoint::connections::dial::{DialError, race};
use crate::endpoint::connections::peer::PeerConnection;
use crate::endpoint::connections::request::EndpointRequest;
use crate::endpoint::connections::{ConnectionOrigin, DialPlan, PeerConnections, SessionId};
use crate::endpoint::parameters::{HANDSHAKE_TIMEOUT, HELLO_CALL_TIMEOUT, apply_member_limits};
use crate::endpoint::rpc::guard::{HelloGuard, NodeGuard};
use crate::endpoint::rpc::http2::Guarded;
use crate::endpoint::tls::Tls;
use crate::endpoint::tls::handshake::{Alpn, Handshake, exporter};
use crate::endpoint::tls::trust::Trust;
use crate::limits::gate::{Gate, HandshakeDecision, HandshakePermit, HandshakeRequest};
use crate::limits::{ConcurrencyLimiter, Permit, RateLimiter, Source};

/// Limits on authenticated hello sessions, in total and per identity.
const MAX_AUTHENTICATED: usize = 1024;
const MAX_PER_IDENTITY: usize = 8;

/// Failed proofs that a source may make in a burst, and the interval after which one more is
/// allowed. A token has at least 128 bits and cannot be guessed. The limit protects the audit log
/// and the CPU from attempts.
const FAILED_PROOF_BURST: u32 = 10;
const FAILED_PROOF_INTERVAL: Duration = Duration::from_secs(1);

/// Sources with failed proofs that are tracked.
const MAX_FAILED_SOURCES: usize = 1024;

/// Results of the subtasks. A permit that a subtask holds returns with its result.
#[derive(Debug)]
enum TaskOutput<A> {
    HandshakeDone {
        permit: HandshakePermit,
        from: SocketAddr,
        outcome: Result<Handshake, String>,
    },
    Dialled {
        peer: NodeId,
        outcome: Result<Handshake, DialError>,
    },
    ProofPhaseDone {
        id: SessionId,
        permit: HandshakePermit,
        session: WatchedSession<A>,
        outcome: ProofOutcome,
    },
    HelloSessionEnded {
        id: SessionId,
        permit: Option<Permit<NodeId>>,
        why: DisconnectReason,
    },
    NodeSessionEnded {
        id: SessionId,
        why: DisconnectReason,
    },
}

/// Session of either ALPN.
#[derive(Debug)]
struct SessionEntry {
    peer: NodeId,
    served: ServedConnection,
}

#[derive(Debug)]
pub(crate) struct SessionManager<A> {
    quic: quinn::Endpoint,
    tls: Tls,
    me: PublicKey,
    services: Services<A>,
    connections: PeerConnections,
    gate: Gate,
    failed_proofs: RateLimiter<Source>,
    /// Limits authenticated hello sessions.
    hello_limiter: ConcurrencyLimiter<NodeId>,
    sessions: BTreeMap<SessionId, SessionEntry>,
    last_id: u64,
    tasks: JoinSet<TaskOutput<A>>,
    /// Last applied credentials and directory, to detect members that left.
    known: Arc<Trust>,
    member_sources: BTreeSet<Source>,
}

fn sources(trust: &Trust) -> BTreeSet<Source> {
    let addresses = trust.directory.values().flat_map(|peer| &peer.addresses);
    addresses.map(|address| Source::from(*address)).collect()
}

impl<A: SessionAuthorizer> SessionManager<A> {
    pub(crate) fn new(
        quic: quinn::Endpoint,
        tls: Tls,
        me: PublicKey,
        services: Services<A>,
    ) -> Self {
        let known = Arc::clone(&services.trust.borrow());
        let member_sources = sources(&known);
        let connections = PeerConnections::new(node_id(&me));
        Self {
            quic,
            tls,
            me,
            services,
            connections,
            gate: Gate::new(),
            failed_proofs: RateLimiter::new(
                FAILED_PROOF_BURST,
                FAILED_PROOF_INTERVAL,
                MAX_FAILED_SOURCES,
            ),
            hello_limiter: ConcurrencyLimiter::new(MAX_AUTHENTICATED, MAX_PER_IDENTITY),
            sessions: BTreeMap::new(),
            last_id: 0,
            tasks: JoinSet::new(),
            known,
            member_sources,
        }
    }

    /// Runs until `stop`.
    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<EndpointRequest>,
        stop: CancellationToken,
    ) {
        let mut trust = self.services.trust.clone();
        let mut check_timer = tokio::time::interval(CHECK_INTERVAL);
        check_timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let quic = self.quic.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Once the sender is gone, the last value stays in force.
                Ok(()) = trust.changed() => {
                    let now = Arc::clone(&trust.borrow_and_update());
                    self.apply_trust(now);
                }
                Some(ended) = self.tasks.join_next() => self.on_task_end(ended),
                Some(request) = inbox.recv() => self.on_request(request),
                _ = check_timer.tick() => self.connections.check(&self.known.directory, Instant::now()),
                incoming = quic.accept() => match incoming {
                    Some(incoming) => self.on_incoming(incoming),
                    None => break,
                },
            }
        }
    }

    fn on_request(&mut self, request: EndpointRequest) {
        let now = Instant::now();
        let plan = match request {
            EndpointRequest::Subscribe { peer, reply } => {
                // The caller may have given up.
                reply.send(self.connections.subscribe(peer)).ok();
                None
            }
            EndpointRequest::Connect { peer } => {
                self.connections.connect(peer, &self.known.directory, now)
            }
            EndpointRequest::Datagram { peer, datagram, is_optional: false } => {
                self.connections.send_datagram(peer, datagram, &self.known.directory, now)
            }
            EndpointRequest::Datagram { peer, datagram, is_optional: true } => {
                self.connections.send_optional(peer, datagram, &self.known.directory, now)
            }
        };
        if let Some(plan) = plan {
            self.dial(plan);
        }
    }

    fn dial(&mut self, plan: DialPlan) {
        let DialPlan { peer, addresses, not_before } = plan;
        let config = self.tls.node_client_config(peer);
        let quic = self.quic.clone();
        self.tasks.spawn(async move {
            sleep_until(not_before).await;
            let outcome = async {
                let connection = race(&quic, &config, &addresses).await?;
                let address = connection.remote_address();
                Handshake::of(connection).map_err(|why| DialError::Failed { address, why })
            };
            TaskOutput::Dialled { peer, outcome: outcome.await }
        });
    }

    /// Handles a first packet: accepts it, requests a Retry or rejects it.
    fn on_incoming(&mut self, incoming: quinn::Incoming) {
        let from = incoming.remote_address();
        let source = Source::from(from);
        let is_member_address = self.member_sources.contains(&source);
        let is_validated = incoming.remote_address_validated();
        let request = HandshakeRequest { source, is_member_address, is_validated };
        let permit = match self.gate.acquire(request) {
            HandshakeDecision::Accept(permit) => permit,
            HandshakeDecision::Retry => {
                // Fails only for a validated address, which never gets a Retry.
                incoming.retry().ok();
                return;
            }
            HandshakeDecision::Refuse => return incoming.refuse(),
        };
        let config = Arc::new(self.tls.server());
        self.tasks.spawn(async move {
            let handshake = async {
                let connecting = incoming.accept_with(config).map_err(|e| e.to_string())?;
                let connection = connecting.await.map_err(|e| e.to_string())?;
                Handshake::of(connection)
            };
            let outcome = timeout(HANDSHAKE_TIMEOUT, handshake).await;
            let outcome = outcome.unwrap_or_else(|_| Err("handshake timed out".to_owned()));
            TaskOutput::HandshakeDone { permit, from, outcome }
        });
    }

    fn on_task_end(&mut self, outcome: Result<TaskOutput<A>, JoinError>) {
        match outcome {
            Ok(TaskOutput::HandshakeDone { from, outcome: Err(why), .. }) => {
                tracing::debug!(%from, error = why, "handshake failed");
            }
            Ok(TaskOutput::HandshakeDone { permit, outcome: Ok(handshake), .. }) => {
                match handshake.alpn {
                    Alpn::Node => {
                        drop(permit);
                        self.start_node_session(handshake, false);
                    }
                    Alpn::Hello => self.start_hello_session(handshake, permit),
                }
            }
            Ok(TaskOutput::Dialled { peer, outcome: Ok(handshake) }) => {
                debug_assert_eq!(peer, handshake.peer.node_id);
                self.start_node_session(handshake, true);
            }
            Ok(TaskOutput::Dialled { peer, outcome: Err(error) }) => {
                tracing::debug!(peer = %peer.short(), %error, "dial failed");
                self.connections.on_dial_failed(peer, error.into(), Instant::now());
            }
            Ok(TaskOutput::ProofPhaseDone { id, permit, session, outcome }) => {
                self.on_proof_outcome(id, session, &outcome);
                drop(permit);
            }
            Ok(TaskOutput::HelloSessionEnded { id, permit, why }) => {
                drop(permit);
                self.end_session(id, &why);
            }
            Ok(TaskOutput::NodeSessionEnded { id, why }) => {
                if let Some(peer) = self.end_session(id, &why) {
                    self.connections.on_closed(peer, id, why, Instant::now());
                }
            }
            Err(panic) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
            Err(_cancelled) => {}
        }
    }

    /// Starts serving a connection on `muster-node/1`, dialled by either side.
    fn start_node_session(&mut self, handshake: Handshake, dialled_by_us: bool) {
        let Handshake { connection, peer, .. } = handshake;
        let node_id = peer.node_id;
        if !self.known.directory.contains_key(&node_id) {
            CloseCode::NotAMember.close(&connection);
            if dialled_by_us {
                let lost = DisconnectReason::new("the peer is no longer a member");
                self.connections.on_dial_failed(node_id, lost, Instant::now());
            }
            return;
        }
        apply_member_limits(&connection);
        let guard = NodeGuard {
            peer,
            connection: connection.clone(),
            trust: self.services.trust.clone(),
            rejections: self.services.rejections.clone(),
        };
        let service = self.services.node.clone();
        let service = Guarded { service, guard, timeout: None };
        let served = ServedConnection::node(service, self.services.datagram_sink.clone());
        let id = self.next_id();
        let link = Arc::new(PeerConnection::new(connection.clone(), served.tasks.clone()));
        let origin = ConnectionOrigin { dialled_by_us, opened: Instant::now() };
        self.connections.add(node_id, id, link, origin);
        let remote = connection.remote_address();
        tracing::debug!(peer = %node_id.short(), %remote, dialled_by_us, "session with member");
        self.sessions.insert(id, SessionEntry { peer: node_id, served });
        self.tasks.spawn(async move {
            let why = DisconnectReason::of(&connection.closed().await);
            TaskOutput::NodeSessionEnded { id, why }
        });
    }

    /// Starts serving `muster-hello/1`. The session holds its permit until it has proved the token.
    fn start_hello_session(&mut self, handshake: Handshake, permit: HandshakePermit) {
        let Handshake { connection, peer, .. } = handshake;
        let source = Source::from(connection.remote_address());
        let is_blocked = self.failed_proofs.is_limited(&source, Instant::now().into_std());
        let (false, Some(exporter)) = (is_blocked, exporter(&connection)) else {
            return CloseCode::Busy.close(&connection);
        };
        let node_id = peer.node_id;
        let service = self.services.hello.service.clone();
        let binding = ChannelBinding { exporter, dialer: peer.public_key, listener: self.me };
        let auth = (self.services.hello.begin)(binding);
        let session = WatchedSession { connection, auth, activity: watch::Sender::new(()) };
        let guard = HelloGuard {
            peer,
            connection: session.connection.clone(),
            trust: self.services.trust.clone(),
            auth: session.auth.clone(),
            activity: session.activity.clone(),
        };
        let served =
            ServedConnection::hello(Guarded { service, guard, timeout: Some(HELLO_CALL_TIMEOUT) });
        let id = self.next_id();
        self.sessions.insert(id, SessionEntry { peer: node_id, served });
        self.tasks.spawn(async move {
            let outcome = session.await_proof().await;
            TaskOutput::ProofPhaseDone { id, permit, session, outcome }
        });
    }

    /// Handles the outcome of the proof phase.
    fn on_proof_outcome(
        &mut self,
        id: SessionId,
        session: WatchedSession<A>,
        outcome: &ProofOutcome,
    ) {
        let Some(entry) = self.sessions.get(&id) else { return };
        if let ProofOutcome::Closed { denied } = outcome {
            if *denied {
                let source = Source::from(session.connection.remote_address());
                self.failed_proofs.record(source, Instant::now().into_std());
            }
            self.sessions.remove(&id);
            return;
        }
        let permit = self.hello_limiter.try_acquire(entry.peer);
        if permit.is_none() {
            CloseCode::Busy.close(&session.connection);
        }
        self.tasks.spawn(async move {
            let why = session.until_ended().await;
            TaskOutput::HelloSessionEnded { id, permit, why }
        });
    }

    /// Removes an ended session. Returns its peer.
    fn end_session(&mut self, id: SessionId, why: &DisconnectReason) -> Option<NodeId> {
        let SessionEntry { peer, .. } = self.sessions.remove(&id)?;
        tracing::debug!(peer = %peer.short(), reason = %why, "session ended");
        Some(peer)
    }

    /// Applies new credentials or a new directory and ends every session of a removed member.
    fn apply_trust(&mut self, trust: Arc<Trust>) {
        self.member_sources = sources(&trust);
        let before = std::mem::replace(&mut self.known, trust);
        let left = |peer: &NodeId| {
            before.directory.contains_key(peer) && !self.known.directory.contains_key(peer)
        };
        for entry in self.sessions.values().filter(|entry| left(&entry.peer)) {
            CloseCode::Removed.close(&entry.served.connection);
        }
    }

    fn next_id(&mut self) -> SessionId {
        self.last_id += 1;
        SessionId(self.last_id)
    }
}
