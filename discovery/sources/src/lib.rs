//! Sources of hints: addresses of possible nodes, from mDNS, DNS, the config and remembered peers.
//!
//! Every address is only a hint. The handshake authenticates the node that answers there; a wrong
//! or hostile hint costs one failed dial. No source can stop the node: a source that fails reports
//! it in [`Sources::state`] and retries.

pub mod dns;
pub mod mdns;
pub mod remembered;
pub mod static_peers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

pub use remembered::RememberedPeer;

/// Maximum number of addresses per source: bounds the dials that a hostile answer can cause.
pub const MAX_HINTS_PER_SOURCE: usize = 64;

/// Configuration of the sources.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This node's port, and the default for addresses without one.
    pub port: u16,
    /// Addresses that this node listens on: never offered as hints. See [`Sources::set_own_addresses`].
    pub own: BTreeSet<SocketAddr>,
    /// Static peers: `host:port`, `address:port`, or either without a port.
    pub static_peers: Vec<String>,
    /// DNS servers for every lookup; empty means the system's servers.
    pub servers: Vec<SocketAddr>,
    /// The domain that lists the nodes in DNS; `None` disables this source.
    pub domain: Option<String>,
    /// Settings of mDNS; `None` disables it.
    pub mdns: Option<mdns::Settings>,
    /// The file of remembered peers (`peers.json`).
    pub remembered: PathBuf,
}

/// A kind of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    Static,
    Dns,
    Mdns,
    Remembered,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Static => "static",
            Self::Dns => "dns",
            Self::Mdns => "mdns",
            Self::Remembered => "remembered",
        })
    }
}

/// Latest report of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceState {
    pub source: Source,
    /// Current hints.
    pub hints: BTreeSet<SocketAddr>,
    /// Description for `musterctl status`, such as `no SRV record for _muster._udp.example.com`.
    pub description: String,
    /// True if the source could not be queried; the hints are then the last good result.
    pub failing: bool,
}

impl fmt::Display for SourceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.description)
    }
}

/// Handle to all sources. Clones share the same sources, which end with the [`SourcesTask`].
#[derive(Debug, Clone)]
pub struct Sources {
    hints: watch::Receiver<Arc<BTreeSet<SocketAddr>>>,
    states: watch::Receiver<Arc<BTreeMap<Source, SourceState>>>,
    own: watch::Sender<BTreeSet<SocketAddr>>,
    refresh: watch::Sender<u64>,
    remember: mpsc::Sender<Vec<RememberedPeer>>,
}

/// Task behind [`Sources`]: the caller spawns [`SourcesTask::run`].
#[derive(Debug)]
pub struct SourcesTask {
    settings: Settings,
    stop: CancellationToken,
    hints: watch::Sender<Arc<BTreeSet<SocketAddr>>>,
    states: watch::Sender<Arc<BTreeMap<Source, SourceState>>>,
    own: watch::Receiver<BTreeSet<SocketAddr>>,
    refresh: watch::Receiver<u64>,
    remember: mpsc::Receiver<Vec<RememberedPeer>>,
}

impl Sources {
    /// Prepares the sources. Nothing is read or sent before the task runs.
    pub fn new(settings: Settings, stop: CancellationToken) -> (Self, SourcesTask) {
        let (hints, hints_seen) = watch::channel(Arc::default());
        let (states, states_seen) = watch::channel(Arc::default());
        let (own, own_seen) = watch::channel(settings.own.clone());
        let (refresh, refresh_requested) = watch::channel(0);
        let (remember, to_remember) = mpsc::channel(4);
        let task = SourcesTask {
            settings,
            stop,
            hints,
            states,
            own: own_seen,
            refresh: refresh_requested,
            remember: to_remember,
        };
        (Self { hints: hints_seen, states: states_seen, own, refresh, remember }, task)
    }

    /// All addresses to dial now, without this node's own.
    pub fn hints(&self) -> watch::Receiver<Arc<BTreeSet<SocketAddr>>> {
        self.hints.clone()
    }

    /// The latest report of each enabled source.
    pub fn state(&self) -> Arc<BTreeMap<Source, SourceState>> {
        Arc::clone(&self.states.borrow())
    }

    /// Receiver of the reports in [`Sources::state`].
    pub fn states(&self) -> watch::Receiver<Arc<BTreeMap<Source, SourceState>>> {
        self.states.clone()
    }

    /// Replaces this node's own addresses after a change.
    pub fn set_own_addresses(&self, own: BTreeSet<SocketAddr>) {
        self.own.send_replace(own);
    }

    /// Makes all sources query immediately instead of at the next interval.
    pub fn refresh(&self) {
        self.refresh.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Replaces the peers on disk for the next start. Written asynchronously: a power cut may lose
    /// the latest list, but never corrupts the file. Ignored once the task has stopped.
    pub async fn remember(&self, peers: Vec<RememberedPeer>) {
        self.remember.send(peers).await.ok();
    }
}

impl SourcesTask {
    /// Runs every source until `stop`.
    pub async fn run(self) {
        let Self { settings, stop, hints, states, mut own, refresh, remember } = self;
        let (reports, mut inbox) = mpsc::channel(16);
        let mut tasks = JoinSet::new();
        let reporter =
            |source| Reporter { source, reports: reports.clone(), refresh: refresh.clone() };
        spawn_sources(&mut tasks, &settings, remember, reporter);
        let mut known: BTreeMap<Source, SourceState> = BTreeMap::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(report) = inbox.recv() => {
                    known.insert(report.source, report);
                    states.send_replace(Arc::new(known.clone()));
                }
                changed = own.changed() => if changed.is_err() {
                    // Every handle was dropped: no hint can be read any more.
                    break;
                },
            }
            let all = merge(&known, &own.borrow_and_update());
            hints.send_if_modified(|old| {
                let differs = **old != all;
                if differs {
                    *old = Arc::new(all);
                }
                differs
            });
        }
        tasks.shutdown().await;
    }
}

fn spawn_sources(
    tasks: &mut JoinSet<()>,
    settings: &Settings,
    remember: mpsc::Receiver<Vec<RememberedPeer>>,
    reporter: impl Fn(Source) -> Reporter,
) {
    let port = settings.port;
    let resolver = dns::Resolver::new(settings.servers.clone());
    let span = |source: Source| info_span!("sources", %source);
    let path = settings.remembered.clone();
    tasks.spawn(
        remembered::run(path, reporter(Source::Remembered), remember)
            .instrument(span(Source::Remembered)),
    );
    if !settings.static_peers.is_empty() {
        let entries = settings.static_peers.clone();
        tasks.spawn(
            static_peers::run(entries, port, resolver.clone(), reporter(Source::Static))
                .instrument(span(Source::Static)),
        );
    }
    if let Some(domain) = settings.domain.clone() {
        tasks.spawn(
            dns::run(domain, port, resolver, reporter(Source::Dns)).instrument(span(Source::Dns)),
        );
    }
    if let Some(mdns) = settings.mdns.clone() {
        tasks.spawn(mdns::run(mdns, port, reporter(Source::Mdns)).instrument(span(Source::Mdns)));
    }
}

fn merge(
    known: &BTreeMap<Source, SourceState>,
    own: &BTreeSet<SocketAddr>,
) -> BTreeSet<SocketAddr> {
    known
        .values()
        .flat_map(|state| state.hints.iter().take(MAX_HINTS_PER_SOURCE))
        .filter(|address| is_dialable(address) && !own.contains(address))
        .copied()
        .collect()
}

fn is_dialable(address: &SocketAddr) -> bool {
    address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
}

/// Reports the results of one source and waits for its next query.
#[derive(Debug)]
struct Reporter {
    source: Source,
    reports: mpsc::Sender<SourceState>,
    refresh: watch::Receiver<u64>,
}

impl Reporter {
    /// Replaces the report of this source.
    async fn report(&self, hints: BTreeSet<SocketAddr>, description: String, failing: bool) {
        // The task outlives its sources: a failed send means that the task is ending.
        self.reports
            .send(SourceState { source: self.source, hints, description, failing })
            .await
            .ok();
    }

    /// Waits for `pause` or for a refresh request; returns true for the latter. Cancel safe.
    async fn wait(&mut self, pause: Duration) -> bool {
        tokio::select! {
            biased;
            refresh_requested = self.refresh_requested() => refresh_requested,
            () = tokio::time::sleep(pause) => false,
        }
    }

    /// Waits for a refresh request; never returns once all handles were dropped. Cancel safe.
    async fn refresh_requested(&mut self) -> bool {
        if self.refresh.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        true
    }
}
