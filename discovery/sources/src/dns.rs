//! Peers listed in DNS: SRV records of `_muster._udp.<domain>` and the addresses of `<domain>`.
//!
//! Queries again when the shortest TTL expires, sooner while nothing is found. Answers are bounded
//! before use. DNS is trusted only for addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tracing::{debug, warn};

use super::{MAX_HINTS_PER_SOURCE, Reporter};

/// Service label (RFC 2782) under which a domain lists its nodes.
pub const SERVICE: &str = "_muster._udp";

/// Maximum number of SRV targets to resolve.
const MAX_TARGETS: usize = 32;
/// Delay after a lookup that found nothing: initial and maximum.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Bounds on a TTL. The lower one prevents floods; the upper one ensures that changes are seen.
const REFRESH: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(1));
/// Timeouts of one query to one server, and of one complete lookup.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Reasons why a lookup failed. "No such record" is an answer, not an error.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error("{name:?} is not a DNS name")]
    Name { name: String },
    #[error("no DNS server answered the query for {name}: {reason}")]
    Unanswered { name: String, reason: String },
    #[error("DNS query for {name} timed out after {} s", LOOKUP_TIMEOUT.as_secs())]
    TimedOut { name: String },
    #[error("system DNS configuration is unusable: {reason}; set discovery.dns.servers")]
    System { reason: String },
}

/// Addresses with their TTL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupAnswer {
    pub addresses: BTreeSet<SocketAddr>,
    pub ttl: Duration,
}

impl LookupAnswer {
    fn empty() -> Self {
        Self { addresses: BTreeSet::new(), ttl: REFRESH.1 }
    }

    fn add(&mut self, addresses: impl IntoIterator<Item = SocketAddr>, ttl: Duration) {
        self.addresses.extend(addresses);
        while self.addresses.len() > MAX_HINTS_PER_SOURCE {
            self.addresses.pop_last();
        }
        self.ttl = self.ttl.min(ttl);
    }
}

/// Queries the configured servers, or the system's servers at the time of the query.
#[derive(Debug, Clone)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
}

impl Resolver {
    /// Empty `servers` means the system's (`/etc/resolv.conf`, read again for each lookup).
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers }
    }

    /// Resolves the addresses of `host`, with `port`; empty if there are none.
    pub async fn addresses(&self, host: &str, port: u16) -> Result<LookupAnswer, LookupError> {
        let name = absolute(host)?;
        with_timeout(host, async {
            let mut answer = LookupAnswer::empty();
            let (ips, ttl) = ips(&self.build()?, &name).await?;
            answer.add(ips.into_iter().map(|ip| SocketAddr::new(ip, port)), ttl);
            Ok(answer)
        })
        .await
    }

    /// Resolves the targets of `_muster._udp.<domain>`, each with its port; empty without a record.
    pub async fn service(&self, domain: &str) -> Result<LookupAnswer, LookupError> {
        let name = absolute(&format!("{SERVICE}.{domain}"))?;
        with_timeout(domain, async {
            let resolver = self.build()?;
            let mut answer = LookupAnswer::empty();
            let found = match resolver.lookup(name.clone(), RecordType::SRV).await {
                Err(error) => none_or_error(&name, &error).map(|()| Vec::new())?,
                Ok(lookup) => {
                    answer.ttl = remaining_ttl(lookup.valid_until());
                    let targets = lookup.answers().iter().filter_map(|record| match &record.data {
                        RData::SRV(srv) => Some((srv.target.clone(), srv.port)),
                        _ => None,
                    });
                    targets.take(MAX_TARGETS).collect()
                }
            };
            // An unresolvable target must not hide the others.
            for (target, port) in found {
                match ips(&resolver, &target).await {
                    Ok((ips, ttl)) => {
                        answer.add(ips.into_iter().map(|ip| SocketAddr::new(ip, port)), ttl);
                    }
                    Err(error) => debug!(%target, %error, "SRV target not resolved"),
                }
            }
            Ok(answer)
        })
        .await
    }

    fn build(&self) -> Result<TokioResolver, LookupError> {
        let system = |error: NetError| LookupError::System { reason: error.to_string() };
        let mut builder = if self.servers.is_empty() {
            TokioResolver::builder_tokio().map_err(system)?
        } else {
            let servers = self.servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = QUERY_TIMEOUT;
        options.attempts = 1;
        options.cache_size = 0; // our backoff honours TTLs; lookups must see current records
        builder.build().map_err(system)
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut udp = ConnectionConfig::udp();
    udp.port = address.port();
    let mut tcp = ConnectionConfig::tcp();
    tcp.port = address.port();
    NameServerConfig::new(address.ip(), true, vec![udp, tcp])
}

/// Parses an absolute name, so that the resolver applies no search list.
fn absolute(host: &str) -> Result<Name, LookupError> {
    let mut name =
        Name::from_ascii(host).map_err(|_| LookupError::Name { name: host.to_owned() })?;
    name.set_fqdn(true);
    Ok(name)
}

async fn ips(
    resolver: &TokioResolver,
    name: &Name,
) -> Result<(Vec<IpAddr>, Duration), LookupError> {
    match resolver.lookup_ip(name.clone()).await {
        Ok(lookup) => Ok((
            lookup.iter().take(MAX_HINTS_PER_SOURCE).collect(),
            remaining_ttl(lookup.valid_until()),
        )),
        Err(error) => none_or_error(name, &error).map(|()| (Vec::new(), REFRESH.1)),
    }
}

fn none_or_error(name: &Name, error: &NetError) -> Result<(), LookupError> {
    if error.is_no_records_found() {
        return Ok(());
    }
    Err(LookupError::Unanswered { name: name.to_string(), reason: error.to_string() })
}

fn remaining_ttl(until: Instant) -> Duration {
    until.saturating_duration_since(tokio::time::Instant::now().into_std())
}

async fn with_timeout<T>(
    name: &str,
    lookup: impl Future<Output = Result<T, LookupError>>,
) -> Result<T, LookupError> {
    let timed_out = || LookupError::TimedOut { name: name.to_owned() };
    tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await.map_err(|_| timed_out())?
}

/// Delay until the next lookup: the TTL if something was found, otherwise exponential backoff.
#[derive(Debug)]
pub(super) struct Backoff {
    next_retry: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next_retry: RETRY.0 }
    }

    /// Returns the delay after a lookup that found records valid for `ttl`.
    pub(super) fn on_found(&mut self, ttl: Duration) -> Duration {
        self.next_retry = RETRY.0;
        ttl.clamp(REFRESH.0, REFRESH.1)
    }

    /// Returns the delay after a lookup that found nothing or failed.
    pub(super) fn on_empty(&mut self) -> Duration {
        let pause = self.next_retry;
        self.next_retry = (pause * 2).min(RETRY.1);
        pause
    }

    /// Resets the delay after an explicit request for a lookup.
    pub(super) fn reset(&mut self) {
        self.next_retry = RETRY.0;
    }
}

/// Looks up `domain` until the task is aborted.
pub(super) async fn run(domain: String, port: u16, resolver: Resolver, mut reporter: Reporter) {
    let domain = domain.trim_end_matches('.').to_owned();
    let mut last: BTreeSet<SocketAddr> = BTreeSet::new();
    let mut backoff = Backoff::new();
    let mut was_failing = false;
    loop {
        let (service, plain) =
            tokio::join!(resolver.service(&domain), resolver.addresses(&domain, port));
        let lookup_result = combine(&domain, service, plain);
        let failing = lookup_result.failed.is_some();
        let pause = match &lookup_result.answer {
            Some(answer) => {
                last.clone_from(&answer.addresses);
                if last.is_empty() { backoff.on_empty() } else { backoff.on_found(answer.ttl) }
            }
            None => backoff.on_empty(), // keeps the last good answer
        };
        if let Some(error) = lookup_result.failed.filter(|_| !was_failing) {
            warn!(%error, retry_in = ?pause, "DNS discovery failed");
        }
        was_failing = failing;
        reporter.report(last.clone(), lookup_result.description, failing).await;
        if reporter.wait(pause).await {
            backoff.reset();
        }
    }
}

struct LookupResult {
    /// `None` if both lookups failed to return an address.
    answer: Option<LookupAnswer>,
    description: String,
    failed: Option<LookupError>,
}

/// Combines both lookups into one answer and one description. A failed one does not invalidate the
/// other's answer.
fn combine(
    domain: &str,
    service: Result<LookupAnswer, LookupError>,
    plain: Result<LookupAnswer, LookupError>,
) -> LookupResult {
    let mut all = LookupAnswer::empty();
    let mut failed = None;
    let mut counts = [0, 0];
    for (count, result) in counts.iter_mut().zip([service, plain]) {
        match result {
            Ok(answer) => {
                *count = answer.addresses.len();
                all.add(answer.addresses, answer.ttl);
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    let description = match (&failed, counts) {
        (Some(error), [0, 0]) => error.to_string(),
        (_, [0, 0]) => format!("no SRV record for {SERVICE}.{domain} and no address for {domain}"),
        (_, [0, n]) => format!("{n} addresses for {domain}, no SRV record for {SERVICE}.{domain}"),
        (_, [n, _]) => format!("{n} addresses by SRV record {SERVICE}.{domain}"),
    };
    let answer = (failed.is_none() || counts != [0, 0]).then_some(all);
    LookupResult { answer, description, failed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_lookup_is_repeated_with_backoff() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..7).map(|_| backoff.on_empty().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        backoff.reset();
        assert_eq!(backoff.on_empty(), RETRY.0);
        assert_eq!(backoff.on_found(Duration::ZERO), REFRESH.0);
        assert_eq!(backoff.on_found(Duration::from_hours(24)), REFRESH.1);
    }

    #[test]
    fn one_failing_lookup_does_not_spoil_the_other() {
        let error = || LookupError::TimedOut { name: "example.com".to_owned() };
        let mut some = LookupAnswer::empty();
        some.add(["192.0.2.1:50000".parse().unwrap()], Duration::from_secs(5));
        let lookup_result = combine("example.com", Err(error()), Ok(some.clone()));
        assert_eq!(lookup_result.answer, Some(some));
        assert!(lookup_result.failed.is_some());

        let lookup_result = combine("example.com", Err(error()), Ok(LookupAnswer::empty()));
        assert!(lookup_result.answer.is_none(), "the last good answer must stay");
        assert_eq!(lookup_result.description, "DNS query for example.com timed out after 10 s");

        let lookup_result =
            combine("example.com", Ok(LookupAnswer::empty()), Ok(LookupAnswer::empty()));
        assert_eq!(lookup_result.answer, Some(LookupAnswer::empty()));
        assert_eq!(
            lookup_result.description,
            "no SRV record for _muster._udp.example.com and no address for example.com"
        );
    }

    #[test]
    fn a_flood_of_addresses_is_cut() {
        let mut answer = LookupAnswer::empty();
        let flood = (0..10_000u16).map(|n| SocketAddr::from(([192, 0, 2, 1], n + 1)));
        answer.add(flood, Duration::from_secs(1));
        assert_eq!(answer.addresses.len(), MAX_HINTS_PER_SOURCE);
    }
}
