//! Connections to members: the live ones, the one that carries our calls, and the next dial. Its
//! only I/O is sending and closing; the endpoint's task calls it and spawns the dials it returns.
//!
//! Either end may dial and either end may open streams, so one connection serves a pair. When both
//! dial at the same moment, both settle on the connection that the lower node id dialled.

pub(crate) mod channel;
pub(crate) mod dead_peer;
pub(crate) mod dial;
pub(crate) mod peer;
pub(crate) mod request;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_types::NodeId;
use tokio::sync::watch;
use tokio::time::Instant;

use super::close::{CloseCode, DisconnectReason};
use super::tls::trust::Directory;
use dead_peer::{Counters, DeadPeerDetector, max_silent_samples};
use peer::{PeerConnection, PeerConnectionState};

/// Connections that one peer may have; a new one evicts the oldest.
const MAX_PER_PEER: usize = 4;

/// Two connections opened within this time count as a simultaneous dial.
const SIMULTANEOUS: Duration = Duration::from_secs(5);

/// Time that a replaced connection stays open for its running calls. The side that dialled it
/// closes first; the other only cleans up.
const RETIRE_OWN: Duration = Duration::from_secs(10);
const RETIRE_OTHER: Duration = Duration::from_secs(40);

/// A connection lost sooner counts as a failed dial: the peer rejects it.
const MIN_LIFETIME: Duration = Duration::from_secs(1);

/// Pause before the next dial after consecutive failures: doubles up to the limit.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_LIMIT: Duration = Duration::from_secs(1);

/// Concurrent dials for optional datagrams. A dial counts only as long as a live, not overloaded
/// peer needs to answer it. Absent peers must not block present ones.
const MAX_OPTIONAL_DIALS: usize = 4;
const OPTIONAL_DIAL_TIME: Duration = Duration::from_secs(1);

/// Datagrams that wait for a dial.
const MAX_WAITING: usize = 16;

/// Session number, unique within this endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) u64);

/// Live connection to a member.
#[derive(Debug)]
pub(crate) struct LiveConnection {
    pub(crate) id: SessionId,
    pub(crate) link: Arc<PeerConnection>,
    pub(crate) origin: ConnectionOrigin,
    detector: DeadPeerDetector,
}

/// Dialling side and opening time of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionOrigin {
    pub(crate) dialled_by_us: bool,
    pub(crate) opened: Instant,
}

/// Parameters of a dial.
#[derive(Debug)]
pub(crate) struct DialPlan {
    pub(crate) peer: NodeId,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) not_before: Instant,
}

/// Purpose of a running dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DialPurpose {
    Required,
    /// For optional datagrams.
    Optional {
        since: Instant,
    },
}

#[derive(Debug)]
struct PeerEntry {
    state: watch::Sender<PeerConnectionState>,
    live: Vec<LiveConnection>,
    dial: Option<DialPurpose>,
    failures: u32,
    not_before: Option<Instant>,
    /// Source address of its latest incoming connection.
    seen_at: Option<SocketAddr>,
    waiting: VecDeque<Bytes>,
}

impl Default for PeerEntry {
    fn default() -> Self {
        let state = PeerConnectionState {
            failed_dials: 0,
            link: Err(DisconnectReason::new("not dialled yet")),
        };
        Self {
            state: watch::Sender::new(state),
            live: Vec::new(),
            dial: None,
            failures: 0,
            not_before: None,
            seen_at: None,
            waiting: VecDeque::new(),
        }
    }
}

/// Members that this node has or wants a connection to.
#[derive(Debug)]
pub(crate) struct PeerConnections {
    me: NodeId,
    entries: BTreeMap<NodeId, PeerEntry>,
}

impl PeerConnections {
    pub(crate) fn new(me: NodeId) -> Self {
        Self { me, entries: BTreeMap::new() }
    }

    pub(crate) fn subscribe(&mut self, peer: NodeId) -> watch::Receiver<PeerConnectionState> {
        self.entries.entry(peer).or_default().state.subscribe()
    }

    /// Requests a connection. Returns a dial plan unless a connection exists or is being dialled.
    pub(crate) fn connect(
        &mut self,
        peer: NodeId,
        directory: &Directory,
        now: Instant,
    ) -> Option<DialPlan> {
        let entry = self.entries.entry(peer).or_default();
        if !entry.wants_dial() {
            entry.publish(self.me < peer);
            return None;
        }
        if peer == self.me {
            entry.fail(DisconnectReason::new("the peer is this node itself"));
            return None;
        }
        let Some(member) = directory.get(&peer) else {
            entry.fail(DisconnectReason::new("the peer is not a member of the cluster"));
            return None;
        };
        let mut addresses = member.addresses.clone();
        if let Some(seen_at) = entry.seen_at.filter(|at| !addresses.contains(at)) {
            addresses.push(seen_at);
        }
        entry.dial = Some(DialPurpose::Required);
        Some(DialPlan { peer, addresses, not_before: entry.not_before.unwrap_or(now) })
    }

    /// Handles a failed dial. The next demand dials again.
    pub(crate) fn on_dial_failed(&mut self, peer: NodeId, why: DisconnectReason, now: Instant) {
        let Some(entry) = self.entries.get_mut(&peer) else { return };
        entry.dial = None;
        entry.back_off(now);
        entry.waiting.clear();
        if !entry.live.iter().any(LiveConnection::is_usable) {
            entry.fail(why);
        }
    }

    /// Handles a new connection, dialled by either side.
    pub(crate) fn add(
        &mut self,
        peer: NodeId,
        id: SessionId,
        link: Arc<PeerConnection>,
        origin: ConnectionOrigin,
    ) {
        let entry = self.entries.entry(peer).or_default();
        if origin.dialled_by_us {
            entry.dial = None;
        } else {
            entry.seen_at = Some(link.connection().remote_address());
        }
        if entry.live.len() >= MAX_PER_PEER {
            CloseCode::Replaced.close(entry.live.remove(0).link.connection());
        }
        let detector = DeadPeerDetector::new(Counters::of(link.connection()));
        entry.live.push(LiveConnection { id, link, origin, detector });
        entry.publish(self.me < peer);
        let preferred = entry.preferred(self.me < peer).map(|live| Arc::clone(&live.link));
        if let Some(link) = preferred {
            for datagram in entry.waiting.drain(..) {
                send(link.connection(), datagram);
            }
        }
    }

    /// Handles the end of a connection.
    pub(crate) fn on_closed(
        &mut self,
        peer: NodeId,
        id: SessionId,
        why: DisconnectReason,
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(&peer) else { return };
        let Some(at) = entry.live.iter().position(|live| live.id == id) else { return };
        let gone = entry.live.remove(at);
        if gone.origin.dialled_by_us && now < gone.origin.opened + MIN_LIFETIME {
            entry.back_off(now);
        } else {
            entry.failures = 0;
            entry.not_before = None;
        }
        if entry.live.iter().any(LiveConnection::is_usable) {
            entry.publish(self.me < peer);
        } else if entry.dial.is_some() {
            entry.state.send_modify(|state| state.link = Err(why));
        } else {
            // Nothing else would wake a call that waits for this connection: a peer may close it
            // before it was ever published.
            entry.fail(why);
        }
    }

    /// Sends the datagram now, or queues it for a moment and requests a connection.
    pub(crate) fn send_datagram(
        &mut self,
        peer: NodeId,
        datagram: Bytes,
        directory: &Directory,
        now: Instant,
    ) -> Option<DialPlan> {
        let entry = self.entries.entry(peer).or_default();
        if let Some(live) = entry.preferred(self.me < peer) {
            send(live.link.connection(), datagram);
            return None;
        }
        if !directory.contains_key(&peer) {
            return None;
        }
        if entry.waiting.len() >= MAX_WAITING {
            entry.waiting.pop_front();
        }
        entry.waiting.push_back(datagram);
        self.connect(peer, directory, now)
    }

    /// Like [`Self::send_datagram`], but drops it beyond the limit of dials for optional datagrams.
    pub(crate) fn send_optional(
        &mut self,
        peer: NodeId,
        datagram: Bytes,
        directory: &Directory,
        now: Instant,
    ) -> Option<DialPlan> {
        let entry = self.entries.entry(peer).or_default();
        let is_new = entry.wants_dial();
        let optional = |entry: &&PeerEntry| match entry.dial {
            Some(DialPurpose::Optional { since }) => now < since + OPTIONAL_DIAL_TIME,
            Some(DialPurpose::Required) | None => false,
        };
        if is_new && self.entries.values().filter(optional).count() >= MAX_OPTIONAL_DIALS {
            return None;
        }
        let plan = self.send_datagram(peer, datagram, directory, now)?;
        self.entries.entry(peer).or_default().dial = Some(DialPurpose::Optional { since: now });
        Some(plan)
    }

    /// Closes silent and replaced connections, and forgets peers that left and that no caller uses.
    pub(crate) fn check(&mut self, directory: &Directory, now: Instant) {
        let me = self.me;
        for (peer, entry) in &mut self.entries {
            let preferred = entry.preferred(me < *peer).map(|live| live.id);
            for live in &mut entry.live {
                let connection = live.link.connection();
                if live.detector.sample(Counters::of(connection))
                    >= max_silent_samples(connection.rtt())
                {
                    CloseCode::Silent.close(connection);
                } else if preferred.is_some_and(|id| id != live.id) && live.has_retired(now) {
                    CloseCode::Replaced.close(connection);
                }
            }
        }
        self.entries.retain(|peer, entry| {
            directory.contains_key(peer)
                || !entry.live.is_empty()
                || entry.dial.is_some()
                || entry.state.receiver_count() > 0
        });
    }
}

impl PeerEntry {
    /// Returns true if no connection to the peer is usable or being dialled.
    fn wants_dial(&self) -> bool {
        self.dial.is_none() && !self.live.iter().any(LiveConnection::is_usable)
    }

    fn preferred(&self, we_are_lower: bool) -> Option<&LiveConnection> {
        let usable = || self.live.iter().filter(|live| live.is_usable());
        let origins: Vec<_> = usable().map(|live| live.origin).collect();
        usable().nth(prefer(&origins, we_are_lower)?)
    }

    fn publish(&mut self, we_are_lower: bool) {
        let Some(preferred) = self.preferred(we_are_lower).map(|live| Arc::clone(&live.link))
        else {
            return;
        };
        self.state.send_if_modified(|state| {
            let changed = !matches!(&state.link, Ok(link) if Arc::ptr_eq(link, &preferred));
            state.link = Ok(preferred);
            changed
        });
    }

    fn fail(&mut self, why: DisconnectReason) {
        self.state.send_modify(|state| {
            state.failed_dials += 1;
            state.link = Err(why);
        });
    }

    fn back_off(&mut self, now: Instant) {
        let pause = (BACKOFF * 2u32.pow(self.failures.min(10))).min(BACKOFF_LIMIT);
        self.failures += 1;
        self.not_before = Some(now + pause);
    }
}

impl LiveConnection {
    fn is_usable(&self) -> bool {
        self.link.connection().close_reason().is_none()
    }

    fn has_retired(&self, now: Instant) -> bool {
        let rest = if self.origin.dialled_by_us { RETIRE_OWN } else { RETIRE_OTHER };
        now >= self.origin.opened + rest
    }
}

/// Picks the connection of a pair that carries our calls: the newest, because its dialler had
/// reason to open it. Of a simultaneous dial, the one that the lower id dialled, so that both ends
/// choose alike.
fn prefer(origins: &[ConnectionOrigin], we_are_lower: bool) -> Option<usize> {
    let newest = origins.iter().map(|origin| origin.opened).max()?;
    let is_rival = |origin: &ConnectionOrigin| newest.duration_since(origin.opened) < SIMULTANEOUS;
    origins
        .iter()
        .enumerate()
        .filter(|(_, origin)| is_rival(origin))
        .max_by_key(|(_, origin)| (origin.dialled_by_us == we_are_lower, origin.opened))
        .map(|(at, _)| at)
}

/// Never blocks. A datagram that does not fit, or meets a connection that just closed, is lost, as
/// datagrams may be.
fn send(connection: &quinn::Connection, datagram: Bytes) {
    if let Err(error) = connection.send_datagram(datagram) {
        tracing::trace!(%error, "datagram dropped");
    }
}

#[cfg(test)]
mod tests {
    use muster_types::{PublicKey, Role};

    use super::*;
    use crate::endpoint::tls::trust::Peer;

    fn origin(dialled_by_us: bool, after: u64, t0: Instant) -> ConnectionOrigin {
        ConnectionOrigin { dialled_by_us, opened: t0 + Duration::from_secs(after) }
    }

    #[test]
    fn both_ends_of_a_simultaneous_dial_choose_the_same_connection() {
        let t0 = Instant::now();
        // The lower id sees its own dial first, the higher id the other way round.
        let lower = prefer(&[origin(true, 0, t0), origin(false, 1, t0)], true);
        let higher = prefer(&[origin(true, 0, t0), origin(false, 1, t0)], false);
        assert_eq!(lower, Some(0), "the lower id keeps what it dialled");
        assert_eq!(higher, Some(1), "the higher id takes what it accepted");
    }

    #[test]
    fn a_peer_that_dials_again_later_has_lost_the_old_connection() {
        let t0 = Instant::now();
        let origins = [origin(true, 0, t0), origin(false, 60, t0)];
        assert_eq!(prefer(&origins, true), Some(1));
        assert_eq!(prefer(&origins, false), Some(1));
        assert_eq!(prefer(&[], true), None);
    }

    #[test]
    fn optional_datagrams_make_few_dials_and_block_no_other_dial() {
        let now = Instant::now();
        let ids: Vec<_> = (2..=9).map(|n| NodeId::from_bytes([n; 32])).collect();
        let peer = |id: &NodeId| Peer {
            public_key: PublicKey::from_bytes([id.as_bytes()[0]; 32]),
            name: "a".parse().unwrap(),
            role: Role::Worker,
            addresses: Vec::new(),
        };
        let directory: Directory = ids.iter().map(|id| (*id, peer(id))).collect();
        let mut connections = PeerConnections::new(NodeId::from_bytes([1; 32]));
        let send_optional = |connections: &mut PeerConnections, id| {
            connections.send_optional(id, Bytes::new(), &directory, now).is_some()
        };
        let dials: Vec<_> = ids.iter().map(|id| send_optional(&mut connections, *id)).collect();
        assert_eq!(dials, [true, true, true, true, false, false, false, false]);
        assert!(!send_optional(&mut connections, ids[0]), "already being dialled");
        // Neither a probe of this node nor a call is limited, and neither counts.
        assert!(connections.send_datagram(ids[4], Bytes::new(), &directory, now).is_some());
        assert!(connections.connect(ids[5], &directory, now).is_some());
        assert!(!send_optional(&mut connections, ids[6]));
        connections.on_dial_failed(ids[4], DisconnectReason::new("no answer"), now);
        assert!(!send_optional(&mut connections, ids[6]));
        connections.on_dial_failed(ids[0], DisconnectReason::new("no answer"), now);
        assert!(send_optional(&mut connections, ids[6]));
        // Silent peers take up a dial for a moment only.
        assert!(!send_optional(&mut connections, ids[7]));
        let late =
            connections.send_optional(ids[7], Bytes::new(), &directory, now + OPTIONAL_DIAL_TIME);
        assert!(late.is_some());
    }

    #[test]
    fn a_connection_to_a_non_member_fails_without_a_dial() {
        let (me, stranger) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        let mut connections = PeerConnections::new(me);
        let state = connections.subscribe(stranger);
        assert!(connections.connect(stranger, &Directory::new(), Instant::now()).is_none());
        assert_eq!(state.borrow().failed_dials, 1);
        assert!(
            connections
                .send_datagram(stranger, Bytes::new(), &Directory::new(), Instant::now())
                .is_none()
        );
        drop(state);
        connections.check(&Directory::new(), Instant::now());
        assert!(connections.entries.is_empty());
    }
}
