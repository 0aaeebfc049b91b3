//! Sources of hints: addresses of possible nodes, from mDNS, DNS, the config and remembered peers.
//!
//! Every address is only a hint. The handshake authenticates the node that answers there; a wrong
//! or hostile hint costs one failed dial. No source can stop the node: a source that fails reports
//! it in [`Sources::state`] and retries.

pub mod dns;
pub mod fixed;
#[cfg(test)]
mod fuzz;
pub mod mdns;
pub mod remembered;

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

pub use remembered::Peer;

/// Maximum number of addresses per source: bounds the dials that a hostile answer can cause.
pub const MAX_HINTS_PER_SOURCE: usize = 64;

/// Configuration of the sources.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This node's port, and the default for addresses without one.
    pub port: u16,
    /// Addresses that this node listens on: never offered as hints. See [`Sources::set_own`].
    pub own: BTreeSet<SocketAddr>,
    /// Static peers: `host:port`, `address:port`, or either without a port.
    pub fixed: Vec<String>,
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
    Fixed,
    Dns,
    Mdns,
    Remembered,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fixed => "static",
            Self::Dns => "dns",
            Self::Mdns => "mdns",
            Self::Remembered => "remembered",
        })
    }
}

/// Latest report of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub source: Source,
    /// Current hints.
    pub hints: BTreeSet<SocketAddr>,
    /// Description for `musterctl status`, such as `no SRV record for _muster._udp.example.com`.
    pub phrase: String,
    /// True if the source could not be queried; the hints are then the last good result.
    pub failing: bool,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.phrase)
    }
}

/// Handle to all sources. Clones share the same sources, which end with the [`Driver`].
#[derive(Debug, Clone)]
pub struct Sources {
    hints: watch::Receiver<Arc<BTreeSet<SocketAddr>>>,
    states: watch::Receiver<Arc<BTreeMap<Source, State>>>,
    own: watch::Sender<BTreeSet<SocketAddr>>,
    poke: watch::Sender<u64>,
    remember: mpsc::Sender<Vec<Peer>>,
}

/// Task behind [`Sources`]: the caller spawns [`Driver::run`].
#[derive(Debug)]
pub struct Driver {
    settings: Settings,
    stop: CancellationToken,
    hints: watch::Sender<Arc<BTreeSet<SocketAddr>>>,
    states: watch::Sender<Arc<BTreeMap<Source, State>>>,
    own: watch::Receiver<BTreeSet<SocketAddr>>,
    poke: watch::Receiver<u64>,
    remember: mpsc::Receiver<Vec<Peer>>,
}

impl Sources {
    /// Prepares the sources. Nothing is read or sent before the driver runs.
    pub fn new(settings: Settings, stop: CancellationToken) -> (Self, Driver) {
        let (hints, hints_seen) = watch::channel(Arc::default());
        let (states, states_seen) = watch::channel(Arc::default());
        let (own, own_seen) = watch::channel(settings.own.clone());
        let (poke, poked) = watch::channel(0);
        let (remember, to_remember) = mpsc::channel(4);
        let driver = Driver {
            settings,
            stop,
            hints,
            states,
            own: own_seen,
            poke: poked,
            remember: to_remember,
        };
        (Self { hints: hints_seen, states: states_seen, own, poke, remember }, driver)
    }

    /// All addresses to dial now, without this node's own.
    pub fn hints(&self) -> watch::Receiver<Arc<BTreeSet<SocketAddr>>> {
        self.hints.clone()
    }

    /// The latest report of each enabled source.
    pub fn state(&self) -> Arc<BTreeMap<Source, State>> {
        Arc::clone(&self.states.borrow())
    }

    /// Receiver of the reports in [`Sources::state`].
    pub fn states(&self) -> watch::Receiver<Arc<BTreeMap<Source, State>>> {
        self.states.clone()
    }

    /// Replaces this node's own addresses after a change.
    pub fn set_own(&self, own: BTreeSet<SocketAddr>) {
        self.own.send_replace(own);
    }

    /// Makes all sources query immediately instead of at the next interval.
    pub fn poke(&self) {
        self.poke.send_modify(|turn| *turn = turn.wrapping_add(1));
    }

    /// Replaces the peers on disk for the next start. Written asynchronously: a power cut may lose
    /// the latest list, but never corrupts the file. Ignored once the driver has stopped.
    pub async fn remember(&self, peers: Vec<Peer>) {
        self.remember.send(peers).await.ok();
    }
}

impl Driver {
    /// Runs every source until `stop`.
    pub async fn run(self) {
        let Self { settings, stop, hints, states, mut own, poke, remember } = self;
        let (reports, mut inbox) = mpsc::channel(16);
        let mut tasks = JoinSet::new();
        let outlet = |source| Outlet { source, reports: reports.clone(), poke: poke.clone() };
        spawn_sources(&mut tasks, &settings, remember, outlet);
        let mut known: BTreeMap<Source, State> = BTreeMap::new();
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
    remember: mpsc::Receiver<Vec<Peer>>,
    outlet: impl Fn(Source) -> Outlet,
) {
    let port = settings.port;
    let resolver = dns::Resolver::new(settings.servers.clone());
    let span = |source: Source| info_span!("candidates", %source);
    let path = settings.remembered.clone();
    tasks.spawn(
        remembered::run(path, outlet(Source::Remembered), remember)
            .instrument(span(Source::Remembered)),
    );
    if !settings.fixed.is_empty() {
        let entries = settings.fixed.clone();
        tasks.spawn(
            fixed::run(entries, port, resolver.clone(), outlet(Source::Fixed))
                .instrument(span(Source::Fixed)),
        );
    }
    if let Some(domain) = settings.domain.clone() {
        tasks.spawn(
            dns::run(domain, port, resolver, outlet(Source::Dns)).instrument(span(Source::Dns)),
        );
    }
    if let Some(mdns) = settings.mdns.clone() {
        tasks.spawn(mdns::run(mdns, port, outlet(Source::Mdns)).instrument(span(Source::Mdns)));
    }
}

fn merge(known: &BTreeMap<Source, State>, own: &BTreeSet<SocketAddr>) -> BTreeSet<SocketAddr> {
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
struct Outlet {
    source: Source,
    reports: mpsc::Sender<State>,
    poke: watch::Receiver<u64>,
}

impl Outlet {
    /// Replaces the report of this source.
    async fn say(&self, hints: BTreeSet<SocketAddr>, phrase: String, failing: bool) {
        // The driver outlives its sources: a failed send means that the driver is ending.
        self.reports.send(State { source: self.source, hints, phrase, failing }).await.ok();
    }

    /// Waits for `pause` or for a refresh request; returns true for the latter. Cancel safe.
    async fn rest(&mut self, pause: Duration) -> bool {
        tokio::select! {
            biased;
            poked = self.poked() => poked,
            () = tokio::time::sleep(pause) => false,
        }
    }

    /// Waits for a refresh request; never returns once all handles were dropped. Cancel safe.
    async fn poked(&mut self) -> bool {
        if self.poke.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        true
    }
}

#[cfg(test)]
mod tests;
