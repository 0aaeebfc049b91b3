//! Task that owns every session: it accepts and rejects sessions, assigns calls to connections and
//! dials members. Other code reaches it by messages and watches.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use muster_pki::identity::node_id;
use muster_types::{NodeId, PublicKey};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::channel::{PeerConnection, PeerState};
use super::close::{CloseCode, DisconnectReason};
use super::connections::{DialPlan, Origin, PeerConnections, SessionId};
use super::dial::{DialError, race};
use super::gate::{Decision, Gate, HandshakePermit, HandshakeRequest};
use super::guard::{HelloGuard, NodeGuard};
use super::http2::Guarded;
use super::proof_failures::ProofFailures;
use super::serve::{
    ProofOutcome, ServedConnection, Services, await_proof, until_closed, until_hello_ends,
};
use super::source::Source;
use super::tls::{self, Alpn, Handshake, Tls};
use super::transport::{
    CHECK_INTERVAL, HANDSHAKE_TIMEOUT, HELLO_CALL_TIMEOUT, apply_member_limits,
};
use super::trust::Trust;
use crate::hello::Session;

/// Limits on authenticated hello sessions, in total and per identity.
const MAX_AUTHENTICATED: usize = 1024;
const MAX_PER_IDENTITY: usize = 8;

/// Requests to the endpoint's task.
#[derive(Debug)]
pub(crate) enum EndpointRequest {
    Subscribe { peer: NodeId, reply: oneshot::Sender<watch::Receiver<PeerState>> },
    Connect { peer: NodeId },
    Datagram { peer: NodeId, datagram: Bytes, is_optional: bool },
}

/// Results of the subtasks.
#[derive(Debug)]
enum TaskOutput {
    HandshakeDone { permit: HandshakePermit, from: SocketAddr, outcome: Result<Handshake, String> },
    Dialled { peer: NodeId, outcome: Result<Handshake, DialError> },
    ProofPhaseDone { id: SessionId, session: Session, outcome: ProofOutcome },
    SessionEnded { id: SessionId, why: DisconnectReason },
}

/// Session of either ALPN.
#[derive(Debug)]
struct SessionEntry {
    peer: NodeId,
    served: ServedConnection,
    kind: SessionKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SessionKind {
    Node,
    /// Holds a permit of the gate until the token is proved.
    Pending(HandshakePermit),
    Authenticated,
}

#[derive(Debug)]
pub(crate) struct SessionManager {
    quic: quinn::Endpoint,
    tls: Tls,
    me: PublicKey,
    services: Services,
    connections: PeerConnections,
    gate: Gate,
    proof_failures: ProofFailures,
    sessions: BTreeMap<SessionId, SessionEntry>,
    last_id: u64,
    tasks: JoinSet<TaskOutput>,
    /// Last applied credentials and directory, to detect members that left.
    known: Arc<Trust>,
    member_sources: BTreeSet<Source>,
}

fn sources(trust: &Trust) -> BTreeSet<Source> {
    let addresses = trust.directory.values().flat_map(|peer| &peer.addresses);
    addresses.map(|address| Source::from(*address)).collect()
}

impl SessionManager {
    pub(crate) fn new(quic: quinn::Endpoint, tls: Tls, me: PublicKey, services: Services) -> Self {
        let known = Arc::clone(&services.trust.borrow());
        let member_sources = sources(&known);
        let connections = PeerConnections::new(node_id(&me));
        Self {
            quic,
            tls,
            me,
            services,
            connections,
            gate: Gate::default(),
            proof_failures: ProofFailures::default(),
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
        let permit =
            match self.gate.acquire(HandshakeRequest { source, is_member_address, is_validated }) {
                (Decision::Accept, Some(permit)) => permit,
                (Decision::Retry, _) => {
                    // Fails only for a validated address, which never gets a Retry.
                    incoming.retry().ok();
                    return;
                }
                (Decision::Refuse | Decision::Accept, _) => return incoming.refuse(),
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

    fn on_task_end(&mut self, outcome: Result<TaskOutput, JoinError>) {
        match outcome {
            Ok(TaskOutput::HandshakeDone { permit, from, outcome: Err(why) }) => {
                self.gate.release(permit);
                tracing::debug!(%from, why, "handshake failed");
            }
            Ok(TaskOutput::HandshakeDone { permit, outcome: Ok(handshake), .. }) => {
                match handshake.alpn {
                    Alpn::Node => {
                        self.gate.release(permit);
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
            Ok(TaskOutput::ProofPhaseDone { id, session, outcome }) => {
                self.on_proof_outcome(id, session, &outcome);
            }
            Ok(TaskOutput::SessionEnded { id, why }) => self.on_session_end(id, why),
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
        let origin = Origin { dialled_by_us, opened: Instant::now() };
        self.connections.add(node_id, id, link, origin);
        let remote = connection.remote_address();
        tracing::debug!(peer = %node_id.short(), %remote, dialled_by_us, "session with member");
        self.sessions.insert(id, SessionEntry { peer: node_id, served, kind: SessionKind::Node });
        self.tasks.spawn(async move {
            TaskOutput::SessionEnded { id, why: until_closed(connection).await }
        });
    }

    /// Starts serving `muster-hello/1`. The session holds its permit until it has proved the token.
    fn start_hello_session(&mut self, handshake: Handshake, permit: HandshakePermit) {
        let Handshake { connection, peer, .. } = handshake;
        let source = Source::from(connection.remote_address());
        let exporter = tls::exporter(&connection);
        let (false, Some(exporter)) =
            (self.proof_failures.is_blocked(source, Instant::now().into_std()), exporter)
        else {
            self.gate.release(permit);
            return CloseCode::Busy.close(&connection);
        };
        let session = Session::new(exporter, peer.public_key, self.me);
        let node_id = peer.node_id;
        let guard = HelloGuard {
            peer,
            connection: connection.clone(),
            trust: self.services.trust.clone(),
            session: session.clone(),
        };
        let service = self.services.hello.clone();
        let served =
            ServedConnection::hello(Guarded { service, guard, timeout: Some(HELLO_CALL_TIMEOUT) });
        let id = self.next_id();
        self.sessions
            .insert(id, SessionEntry { peer: node_id, served, kind: SessionKind::Pending(permit) });
        self.tasks.spawn(async move {
            let outcome = await_proof(connection, session.clone()).await;
            TaskOutput::ProofPhaseDone { id, session, outcome }
        });
    }

    /// Handles the outcome of the proof phase.
    fn on_proof_outcome(&mut self, id: SessionId, session: Session, outcome: &ProofOutcome) {
        let authenticated = |entry: &&SessionEntry| entry.kind == SessionKind::Authenticated;
        let total = self.sessions.values().filter(authenticated).count();
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        let SessionKind::Pending(permit) = entry.kind else { return };
        entry.kind = SessionKind::Authenticated;
        let (peer, connection) = (entry.peer, entry.served.connection.clone());
        self.gate.release(permit);
        if let ProofOutcome::Closed { denied } = outcome {
            if *denied {
                let source = Source::from(connection.remote_address());
                self.proof_failures.record(source, Instant::now().into_std());
            }
            self.sessions.remove(&id);
            return;
        }
        let same =
            self.sessions.values().filter(authenticated).filter(|other| other.peer == peer).count();
        if total >= MAX_AUTHENTICATED || same > MAX_PER_IDENTITY {
            CloseCode::Busy.close(&connection);
        }
        self.tasks.spawn(async move {
            TaskOutput::SessionEnded { id, why: until_hello_ends(connection, session).await }
        });
    }

    fn on_session_end(&mut self, id: SessionId, why: DisconnectReason) {
        let Some(SessionEntry { peer, kind, .. }) = self.sessions.remove(&id) else { return };
        tracing::debug!(peer = %peer.short(), %why, "session ended");
        match kind {
            SessionKind::Node => self.connections.on_closed(peer, id, why, Instant::now()),
            SessionKind::Pending(permit) => self.gate.release(permit),
            SessionKind::Authenticated => {}
        }
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
