//! Peers on the same link, by mDNS and DNS-SD (RFC 6762, RFC 6763): service `_muster._udp.local.`.
//!
//! Announces and browses only on interfaces whose address the settings choose. The announcement
//! carries the short node id, the port, a protocol version and a tag of the token's public id, so
//! that two clusters on one link do not dial each other. It carries nothing derived from the
//! secret.
//!
//! The library may lose events (mdns-sd 0.21.7). The goodbye of an unknown instance enters its
//! cache. If that instance announces itself within the same second, the library never reports it.
//! This happens when all nodes of a link are restarted at once. So this module browses again
//! periodically, which makes the library report its whole cache.
//! (The library briefly joins the multicast group on every interface before the selection applies;
//! it sends no mDNS message there.)

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use mdns_sd::{
    DaemonEvent, IfKind, IfPredicate, Receiver, ResolvedService, ScopedIp, ServiceDaemon,
    ServiceEvent, ServiceInfo,
};
use muster_types::NodeId;
use ring::digest::{SHA256, digest};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::{MAX_HINTS_PER_SOURCE, Reporter};

/// The DNS-SD service type.
pub const SERVICE: &str = "_muster._udp.local.";
/// Version of the announcement format (TXT key `v`).
const VERSION: &str = "1";
/// Maximum number of instances: more than any link should have, few enough to keep in memory.
const MAX_INSTANCES: usize = 256;
/// Delay after a failure of the library.
const RETRY: Duration = Duration::from_secs(5);
/// Delay before browsing again after the start and after the link has come up. It doubles each
/// time, up to the maximum.
const MIN_BROWSE_DELAY: Duration = Duration::from_secs(2);
const MAX_BROWSE_DELAY: Duration = Duration::from_mins(2);
/// Interval at which the library polls interfaces: a link may come up after the node.
const INTERFACES_EVERY_SECONDS: u32 = 2;

/// Settings of the announcement.
#[derive(Clone)]
pub struct Settings {
    /// This node.
    pub me: NodeId,
    /// The public id of the token the cluster is founded with.
    pub token_id: String,
    /// Selects the addresses to announce, on their interfaces only.
    pub address_filter: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("me", &self.me).finish_non_exhaustive()
    }
}

/// Distinguishes clusters on one link: 64 bits of a hash of the token's public id.
fn token_tag(token_id: &str) -> String {
    let hash = digest(&SHA256, format!("muster mdns tag 1\n{token_id}").as_bytes());
    let first = hash.as_ref()[..8].try_into().expect("SHA-256 has 32 bytes");
    format!("{:016x}", u64::from_be_bytes(first))
}

/// Announces and browses until the task is aborted.
pub(super) async fn run(settings: Settings, port: u16, mut reporter: Reporter) {
    loop {
        if let Err(error) = run_once(&settings, port, &mut reporter).await {
            warn!(%error, retry_in = ?RETRY, "mDNS failed");
            reporter.report(BTreeSet::new(), format!("mDNS failed: {error}"), true).await;
        }
        reporter.wait(RETRY).await;
    }
}

/// Returns only when the library fails or drops the subscription.
async fn run_once(
    settings: &Settings,
    port: u16,
    reporter: &mut Reporter,
) -> Result<(), mdns_sd::Error> {
    let library = Library::start(settings, port)?;
    let interfaces = library.daemon.monitor()?;
    let mut events = library.browse()?;
    let mut link = LinkState::new(&settings.token_id, settings.me);
    let mut backoff = BrowseBackoff::new();
    let mut next_browse = Instant::now() + backoff.next();
    reporter.report(BTreeSet::new(), link.description(), false).await;
    loop {
        let changed = tokio::select! {
            biased;
            event = events.recv_async() => {
                let Ok(event) = event else { return Ok(()) };
                link.apply(event)
            }
            interface = interfaces.recv_async() => {
                let Ok(interface) = interface else { return Ok(()) };
                if matches!(interface, DaemonEvent::IpAdd(_)) {
                    backoff = BrowseBackoff::new();
                    next_browse = Instant::now() + backoff.next();
                }
                false
            }
            _ = reporter.refresh_requested() => {
                backoff = BrowseBackoff::new();
                next_browse = Instant::now();
                false
            }
            () = sleep_until(next_browse) => {
                next_browse = Instant::now() + backoff.next();
                let before = std::mem::replace(&mut events, library.browse()?);
                // The library drops the old sender when it accepts the new subscription.
                let mut changed = false;
                while let Ok(event) = before.recv_async().await {
                    changed |= link.apply(event);
                }
                changed
            }
        };
        if changed {
            reporter.report(link.hints(), link.description(), false).await;
        }
    }
}

/// Delays between browse requests: each twice as long as the previous one.
struct BrowseBackoff(Duration);

impl BrowseBackoff {
    fn new() -> Self {
        Self(MIN_BROWSE_DELAY)
    }

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(MAX_BROWSE_DELAY);
        pause
    }
}

/// The library's thread with the announcement. Sends a goodbye and ends when dropped.
struct Library {
    daemon: ServiceDaemon,
    me: ServiceInfo,
}

impl Drop for Library {
    fn drop(&mut self) {
        self.daemon.shutdown().ok(); // on a full queue the thread ends with the process
    }
}

impl Library {
    /// Starts the library. Nothing is sent before the first [`Library::browse`].
    fn start(settings: &Settings, port: u16) -> Result<Self, mdns_sd::Error> {
        let address_filter = Arc::clone(&settings.address_filter);
        let here =
            IfKind::Predicate(IfPredicate::new(move |interface| address_filter(interface.ip())));
        let short = settings.me.short();
        let host = format!("muster-{short}.local.");
        let txt = [("v", VERSION.to_owned()), ("t", token_tag(&settings.token_id))];
        let mut me =
            ServiceInfo::new(SERVICE, &short, &host, "", port, &txt[..])?.enable_addr_auto();
        me.set_interfaces(vec![here.clone()]);
        // The name holds 50 bits of a hash of this node's key, so it is unique. Probing for
        // conflicts (RFC 6762 section 8.1) would cost the first 750 ms.
        me.set_requires_probe(false);
        let library = Self { daemon: ServiceDaemon::new()?, me };
        library.daemon.disable_interface(IfKind::All)?;
        library.daemon.enable_interface(here)?;
        library.daemon.set_ip_check_interval(INTERFACES_EVERY_SECONDS)?;
        Ok(library)
    }

    /// Sends a query within 120 ms and announces this node at its current addresses. The receiver
    /// first gets all instances in the library's cache.
    fn browse(&self) -> Result<Receiver<ServiceEvent>, mdns_sd::Error> {
        let events = self.daemon.browse(SERVICE)?;
        self.daemon.register(self.me.clone())?;
        Ok(events)
    }
}

/// Instances announced on the link.
struct LinkState {
    token_tag: String,
    me: String,
    instances: BTreeMap<String, BTreeSet<SocketAddr>>,
    foreign: BTreeSet<String>,
}

impl LinkState {
    fn new(token_id: &str, me: NodeId) -> Self {
        Self {
            token_tag: token_tag(token_id),
            me: format!("{}.{SERVICE}", me.short()),
            instances: BTreeMap::new(),
            foreign: BTreeSet::new(),
        }
    }

    /// Applies an event. Returns true if the known instances have changed.
    fn apply(&mut self, event: ServiceEvent) -> bool {
        match event {
            ServiceEvent::ServiceResolved(service) => self.resolved(&service),
            ServiceEvent::ServiceRemoved(_, name) => {
                self.foreign.remove(&name) | self.instances.remove(&name).is_some()
            }
            _ => false,
        }
    }

    fn resolved(&mut self, service: &ResolvedService) -> bool {
        let name = service.get_fullname().to_owned();
        let known = self.instances.contains_key(&name) || self.foreign.contains(&name);
        let full = self.instances.len() + self.foreign.len() >= MAX_INSTANCES;
        if name == self.me || (full && !known) {
            return false;
        }
        let ours = service.get_property_val_str("v") == Some(VERSION)
            && service.get_property_val_str("t") == Some(self.token_tag.as_str());
        if !ours {
            debug!(name, "another cluster on this link");
            return self.foreign.insert(name.clone()) | self.instances.remove(&name).is_some();
        }
        let addresses: BTreeSet<_> = service
            .get_addresses()
            .iter()
            .map(|ip| socket_address(ip, service.get_port()))
            .take(MAX_HINTS_PER_SOURCE)
            .collect();
        self.foreign.remove(&name);
        debug!(name, ?addresses, "mDNS peer found");
        self.instances.insert(name, addresses.clone()) != Some(addresses)
    }

    fn hints(&self) -> BTreeSet<SocketAddr> {
        self.instances.values().flatten().copied().take(MAX_HINTS_PER_SOURCE).collect()
    }

    fn description(&self) -> String {
        match (self.instances.len(), self.foreign.len()) {
            (0, 0) => "no other node announces itself on this link".to_owned(),
            (0, foreign) => {
                format!("only nodes with another token on this link ({foreign})")
            }
            (nodes, _) => format!("{nodes} nodes on this link"),
        }
    }
}

/// Builds a socket address. A link-local address is reachable only through the interface on which
/// it was received.
fn socket_address(ip: &ScopedIp, port: u16) -> SocketAddr {
    match ip {
        ScopedIp::V6(v6) if v6.addr().is_unicast_link_local() => {
            SocketAddrV6::new(*v6.addr(), port, 0, v6.scope_id().index).into()
        }
        other => SocketAddr::new(other.to_ip_addr(), port),
    }
}

#[cfg(test)]
mod tests;
