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

use super::channel::{Link, State};
use super::close::{Close, Lost};
use super::dial::{DialError, race};
use super::gate::{Arrival, Gate, Place, Verdict};
use super::guard::{HelloGuard, NodeGuard};
use super::http2::Guarded;
use super::links::{Links, Origin, Plan, SessionId};
use super::misses::Misses;
use super::serve::{Probation, Served, Services, probation, until_hello_ends, until_lost};
use super::source::Source;
use super::tls::{self, Alpn, Shaken, Tls};
use super::transport::{HANDSHAKE, HELLO_CALL, LOOK, admit_member};
use super::trust::Trust;
use crate::hello::Session;

/// Limits on authenticated hello sessions, in total and per identity.
const PROVEN: usize = 1024;
const PROVEN_PER_IDENTITY: usize = 8;

/// Requests to the endpoint's task.
#[derive(Debug)]
pub(crate) enum Request {
    Subscribe { peer: NodeId, reply: oneshot::Sender<watch::Receiver<State>> },
    Demand { peer: NodeId },
    Datagram { peer: NodeId, datagram: Bytes, can_be_spared: bool },
}

/// Results of the subtasks.
#[derive(Debug)]
enum Outcome {
    Shaken { place: Place, from: SocketAddr, outcome: Result<Shaken, String> },
    Dialled { peer: NodeId, outcome: Result<Shaken, DialError> },
    Probation { id: SessionId, session: Session, outcome: Probation },
    Ended { id: SessionId, why: Lost },
}

/// Session of either ALPN.
#[derive(Debug)]
struct Running {
    peer: NodeId,
    served: Served,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Node,
    /// Holds a permit of the gate until the token is proved.
    Unproven(Place),
    Proven,
}

#[derive(Debug)]
pub(crate) struct Owner {
    quic: quinn::Endpoint,
    tls: Tls,
    me: PublicKey,
    services: Services,
    links: Links,
    gate: Gate,
    misses: Misses,
    sessions: BTreeMap<SessionId, Running>,
    last_id: u64,
    tasks: JoinSet<Outcome>,
    /// Last applied credentials and directory, to detect members that left.
    known: Arc<Trust>,
    member_sources: BTreeSet<Source>,
}

fn sources(trust: &Trust) -> BTreeSet<Source> {
    let addresses = trust.directory.values().flat_map(|peer| &peer.addresses);
    addresses.map(|address| Source::from(*address)).collect()
}

impl Owner {
    pub(crate) fn new(quic: quinn::Endpoint, tls: Tls, me: PublicKey, services: Services) -> Self {
        let known = Arc::clone(&services.trust.borrow());
        let member_sources = sources(&known);
        let links = Links::new(node_id(&me));
        Self {
            quic,
            tls,
            me,
            services,
            links,
            gate: Gate::default(),
            misses: Misses::default(),
            sessions: BTreeMap::new(),
            last_id: 0,
            tasks: JoinSet::new(),
            known,
            member_sources,
        }
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Request>, stop: CancellationToken) {
        let mut trust = self.services.trust.clone();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let quic = self.quic.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Once the sender is gone, the last value stays in force.
                Ok(()) = trust.changed() => {
                    let now = Arc::clone(&trust.borrow_and_update());
                    self.believe(now);
                }
                Some(ended) = self.tasks.join_next() => self.ended(ended),
                Some(request) = inbox.recv() => self.asked(request),
                _ = look.tick() => self.links.look(&self.known.directory, Instant::now()),
                incoming = quic.accept() => match incoming {
                    Some(incoming) => self.arrived(incoming),
                    None => break,
                },
            }
        }
    }

    fn asked(&mut self, request: Request) {
        let now = Instant::now();
        let plan = match request {
            Request::Subscribe { peer, reply } => {
                // The caller may have given up.
                reply.send(self.links.subscribe(peer)).ok();
                None
            }
            Request::Demand { peer } => self.links.demand(peer, &self.known.directory, now),
            Request::Datagram { peer, datagram, can_be_spared: false } => {
                self.links.datagram(peer, datagram, &self.known.directory, now)
            }
            Request::Datagram { peer, datagram, can_be_spared: true } => {
                self.links.offer(peer, datagram, &self.known.directory, now)
            }
        };
        if let Some(plan) = plan {
            self.dial(plan);
        }
    }

    fn dial(&mut self, plan: Plan) {
        let Plan { peer, addresses, not_before } = plan;
        let config = self.tls.node_client(peer);
        let quic = self.quic.clone();
        self.tasks.spawn(async move {
            sleep_until(not_before).await;
            let outcome = async {
                let connection = race(&quic, &config, &addresses).await?;
                let address = connection.remote_address();
                Shaken::of(connection).map_err(|why| DialError::Failed { address, why })
            };
            Outcome::Dialled { peer, outcome: outcome.await }
        });
    }

    /// Handles a first packet: accepts it, requests a Retry or rejects it.
    fn arrived(&mut self, incoming: quinn::Incoming) {
        let from = incoming.remote_address();
        let source = Source::from(from);
        let is_member_address = self.member_sources.contains(&source);
        let is_validated = incoming.remote_address_validated();
        let place = match self.gate.arrive(Arrival { source, is_member_address, is_validated }) {
            (Verdict::Accept, Some(place)) => place,
            (Verdict::Retry, _) => {
                // Fails only for a validated address, which never gets a Retry.
                incoming.retry().ok();
                return;
            }
            (Verdict::Refuse | Verdict::Accept, _) => return incoming.refuse(),
        };
        let config = Arc::new(self.tls.server());
        self.tasks.spawn(async move {
            let shake = async {
                let connecting = incoming.accept_with(config).map_err(|e| e.to_string())?;
                let connection = connecting.await.map_err(|e| e.to_string())?;
                Shaken::of(connection)
            };
            let outcome = timeout(HANDSHAKE, shake).await;
            let outcome = outcome.unwrap_or_else(|_| Err("handshake timed out".to_owned()));
            Outcome::Shaken { place, from, outcome }
        });
    }

    fn ended(&mut self, outcome: Result<Outcome, JoinError>) {
        match outcome {
            Ok(Outcome::Shaken { place, from, outcome: Err(why) }) => {
                self.gate.leave(place);
                tracing::debug!(%from, why, "handshake failed");
            }
            Ok(Outcome::Shaken { place, outcome: Ok(shaken), .. }) => match shaken.alpn {
                Alpn::Node => {
                    self.gate.leave(place);
                    self.begin_node(shaken, false);
                }
                Alpn::Hello => self.begin_hello(shaken, place),
            },
            Ok(Outcome::Dialled { peer, outcome: Ok(shaken) }) => {
                debug_assert_eq!(peer, shaken.peer.node_id);
                self.begin_node(shaken, true);
            }
            Ok(Outcome::Dialled { peer, outcome: Err(error) }) => {
                tracing::debug!(peer = %peer.short(), %error, "dial failed");
                self.links.failed(peer, error.into(), Instant::now());
            }
            Ok(Outcome::Probation { id, session, outcome }) => self.judged(id, session, &outcome),
            Ok(Outcome::Ended { id, why }) => self.forget(id, why),
            Err(panic) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
            Err(_cancelled) => {}
        }
    }

    /// Starts serving a connection on `muster-node/1`, dialled by either side.
    fn begin_node(&mut self, shaken: Shaken, dialled_by_us: bool) {
        let Shaken { connection, peer, .. } = shaken;
        let node_id = peer.node_id;
        if !self.known.directory.contains_key(&node_id) {
            Close::NotAdmitted.close(&connection);
            if dialled_by_us {
                let lost = Lost::because("the peer is no longer a member");
                self.links.failed(node_id, lost, Instant::now());
            }
            return;
        }
        admit_member(&connection);
        let guard = NodeGuard {
            peer,
            connection: connection.clone(),
            trust: self.services.trust.clone(),
            refusals: self.services.refusals.clone(),
        };
        let service = self.services.node.clone();
        let service = Guarded { service, guard, patience: None };
        let served = Served::node(service, self.services.mailbox.clone());
        let id = self.next_id();
        let link = Arc::new(Link::new(connection.clone(), served.tasks.clone()));
        let origin = Origin { dialled_by_us, opened: Instant::now() };
        self.links.add(node_id, id, link, origin);
        let remote = connection.remote_address();
        tracing::debug!(peer = %node_id.short(), %remote, dialled_by_us, "session with member");
        self.sessions.insert(id, Running { peer: node_id, served, kind: Kind::Node });
        self.tasks.spawn(async move { Outcome::Ended { id, why: until_lost(connection).await } });
    }

    /// Starts serving `muster-hello/1`. The session holds its permit until it has proved the token.
    fn begin_hello(&mut self, shaken: Shaken, place: Place) {
        let Shaken { connection, peer, .. } = shaken;
        let source = Source::from(connection.remote_address());
        let exporter = tls::exporter(&connection);
        let (false, Some(exporter)) =
            (self.misses.is_barred(source, Instant::now().into_std()), exporter)
        else {
            self.gate.leave(place);
            return Close::Busy.close(&connection);
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
        let served = Served::hello(Guarded { service, guard, patience: Some(HELLO_CALL) });
        let id = self.next_id();
        self.sessions.insert(id, Running { peer: node_id, served, kind: Kind::Unproven(place) });
        self.tasks.spawn(async move {
            let outcome = probation(connection, session.clone()).await;
            Outcome::Probation { id, session, outcome }
        });
    }

    /// Handles the outcome of the proof phase.
    fn judged(&mut self, id: SessionId, session: Session, outcome: &Probation) {
        let proven = |running: &&Running| running.kind == Kind::Proven;
        let total = self.sessions.values().filter(proven).count();
        let Some(running) = self.sessions.get_mut(&id) else { return };
        let Kind::Unproven(place) = running.kind else { return };
        running.kind = Kind::Proven;
        let (peer, connection) = (running.peer, running.served.connection.clone());
        self.gate.leave(place);
        if let Probation::Ended { denied } = outcome {
            if *denied {
                let source = Source::from(connection.remote_address());
                self.misses.record(source, Instant::now().into_std());
            }
            self.sessions.remove(&id);
            return;
        }
        let same = self.sessions.values().filter(proven).filter(|other| other.peer == peer).count();
        if total >= PROVEN || same > PROVEN_PER_IDENTITY {
            Close::Busy.close(&connection);
        }
        self.tasks.spawn(async move {
            Outcome::Ended { id, why: until_hello_ends(connection, session).await }
        });
    }

    fn forget(&mut self, id: SessionId, why: Lost) {
        let Some(Running { peer, kind, .. }) = self.sessions.remove(&id) else { return };
        tracing::debug!(peer = %peer.short(), %why, "session ended");
        match kind {
            Kind::Node => self.links.lost(peer, id, why, Instant::now()),
            Kind::Unproven(place) => self.gate.leave(place),
            Kind::Proven => {}
        }
    }

    /// Applies new credentials or a new directory and ends every session of a removed member.
    fn believe(&mut self, trust: Arc<Trust>) {
        self.member_sources = sources(&trust);
        let before = std::mem::replace(&mut self.known, trust);
        let left = |peer: &NodeId| {
            before.directory.contains_key(peer) && !self.known.directory.contains_key(peer)
        };
        for running in self.sessions.values().filter(|running| left(&running.peer)) {
            Close::Removed.close(&running.served.connection);
        }
    }

    fn next_id(&mut self) -> SessionId {
        self.last_id += 1;
        SessionId(self.last_id)
    }
}
