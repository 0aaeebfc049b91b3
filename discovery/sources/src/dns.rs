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

use super::{MAX_HINTS_PER_SOURCE, Outlet};

/// Service label (RFC 2782) under which a domain lists its nodes.
pub const SERVICE: &str = "_muster._udp";

/// Maximum number of SRV targets to resolve.
const MAX_TARGETS: usize = 32;
/// Delay after a lookup that found nothing: initial and maximum.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Bounds on a TTL. The lower one prevents floods; the upper one ensures that changes are seen.
const REFRESH: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(1));
/// Timeouts of one query to one server, and of one complete lookup.
const QUESTION: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_secs(10);

/// Reasons why a lookup failed. "No such record" is an answer, not an error.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error("{name:?} is not a DNS name")]
    Name { name: String },
    #[error("no DNS server answered the query for {name}: {reason}")]
    Unanswered { name: String, reason: String },
    #[error("DNS query for {name} timed out after {} s", LOOK.as_secs())]
    Late { name: String },
    #[error("system DNS configuration is unusable: {reason}; set discovery.dns.servers")]
    System { reason: String },
}

/// Addresses with their TTL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub addresses: BTreeSet<SocketAddr>,
    pub ttl: Duration,
}

impl Answer {
    fn none() -> Self {
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
    pub async fn addresses(&self, host: &str, port: u16) -> Result<Answer, LookError> {
        let name = absolute(host)?;
        in_time(host, async {
            let mut answer = Answer::none();
            let (ips, ttl) = ips(&self.build()?, &name).await?;
            answer.add(ips.into_iter().map(|ip| SocketAddr::new(ip, port)), ttl);
            Ok(answer)
        })
        .await
    }

    /// Resolves the targets of `_muster._udp.<domain>`, each with its port; empty without a record.
    pub async fn service(&self, domain: &str) -> Result<Answer, LookError> {
        let name = absolute(&format!("{SERVICE}.{domain}"))?;
        in_time(domain, async {
            let resolver = self.build()?;
            let mut answer = Answer::none();
            let found = match resolver.lookup(name.clone(), RecordType::SRV).await {
                Err(error) => none_or_error(&name, &error).map(|()| Vec::new())?,
                Ok(lookup) => {
                    answer.ttl = left(lookup.valid_until());
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

    fn build(&self) -> Result<TokioResolver, LookError> {
        let system = |error: NetError| LookError::System { reason: error.to_string() };
        let mut builder = if self.servers.is_empty() {
            TokioResolver::builder_tokio().map_err(system)?
        } else {
            let servers = self.servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = QUESTION;
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
fn absolute(host: &str) -> Result<Name, LookError> {
    let mut name = Name::from_ascii(host).map_err(|_| LookError::Name { name: host.to_owned() })?;
    name.set_fqdn(true);
    Ok(name)
}

async fn ips(resolver: &TokioResolver, name: &Name) -> Result<(Vec<IpAddr>, Duration), LookError> {
    match resolver.lookup_ip(name.clone()).await {
        Ok(lookup) => {
            Ok((lookup.iter().take(MAX_HINTS_PER_SOURCE).collect(), left(lookup.valid_until())))
        }
        Err(error) => none_or_error(name, &error).map(|()| (Vec::new(), REFRESH.1)),
    }
}

fn none_or_error(name: &Name, error: &NetError) -> Result<(), LookError> {
    if error.is_no_records_found() {
        return Ok(());
    }
    Err(LookError::Unanswered { name: name.to_string(), reason: error.to_string() })
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(tokio::time::Instant::now().into_std())
}

async fn in_time<T>(
    name: &str,
    look: impl Future<Output = Result<T, LookError>>,
) -> Result<T, LookError> {
    let late = || LookError::Late { name: name.to_owned() };
    tokio::time::timeout(LOOK, look).await.map_err(|_| late())?
}

/// Delay until the next lookup: the TTL if something was found, otherwise exponential backoff.
#[derive(Debug)]
pub(super) struct Pace {
    next_retry: Duration,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { next_retry: RETRY.0 }
    }

    /// Returns the delay after a lookup that found records valid for `ttl`.
    pub(super) fn found(&mut self, ttl: Duration) -> Duration {
        self.next_retry = RETRY.0;
        ttl.clamp(REFRESH.0, REFRESH.1)
    }

    /// Returns the delay after a lookup that found nothing or failed.
    pub(super) fn empty(&mut self) -> Duration {
        let pause = self.next_retry;
        self.next_retry = (pause * 2).min(RETRY.1);
        pause
    }

    /// Resets the delay after an explicit request for a lookup.
    pub(super) fn hurry(&mut self) {
        self.next_retry = RETRY.0;
    }
}

/// Looks up `domain` until the task is aborted.
pub(super) async fn run(domain: String, port: u16, resolver: Resolver, mut outlet: Outlet) {
    let domain = domain.trim_end_matches('.').to_owned();
    let mut last: BTreeSet<SocketAddr> = BTreeSet::new();
    let mut pace = Pace::new();
    let mut was_failing = false;
    loop {
        let (service, plain) =
            tokio::join!(resolver.service(&domain), resolver.addresses(&domain, port));
        let look = judge(&domain, service, plain);
        let failing = look.failed.is_some();
        let pause = match &look.answer {
            Some(answer) => {
                last.clone_from(&answer.addresses);
                if last.is_empty() { pace.empty() } else { pace.found(answer.ttl) }
            }
            None => pace.empty(), // keeps the last good answer
        };
        if let Some(error) = look.failed.filter(|_| !was_failing) {
            warn!(%error, retry_in = ?pause, "DNS discovery failed");
        }
        was_failing = failing;
        outlet.say(last.clone(), look.phrase, failing).await;
        if outlet.rest(pause).await {
            pace.hurry();
        }
    }
}

struct Look {
    /// `None` if both lookups failed to return an address.
    answer: Option<Answer>,
    phrase: String,
    failed: Option<LookError>,
}

/// Combines both lookups into one answer and one description. A failed one does not invalidate the
/// other's answer.
fn judge(
    domain: &str,
    service: Result<Answer, LookError>,
    plain: Result<Answer, LookError>,
) -> Look {
    let mut all = Answer::none();
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
    let phrase = match (&failed, counts) {
        (Some(error), [0, 0]) => error.to_string(),
        (_, [0, 0]) => format!("no SRV record for {SERVICE}.{domain} and no address for {domain}"),
        (_, [0, n]) => format!("{n} addresses for {domain}, no SRV record for {SERVICE}.{domain}"),
        (_, [n, _]) => format!("{n} addresses by SRV record {SERVICE}.{domain}"),
    };
    let answer = (failed.is_none() || counts != [0, 0]).then_some(all);
    Look { answer, phrase, failed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_look_is_repeated_ever_more_slowly() {
        let mut pace = Pace::new();
        let pauses: Vec<_> = (0..7).map(|_| pace.empty().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        pace.hurry();
        assert_eq!(pace.empty(), RETRY.0);
        assert_eq!(pace.found(Duration::ZERO), REFRESH.0);
        assert_eq!(pace.found(Duration::from_hours(24)), REFRESH.1);
    }

    #[test]
    fn one_failing_lookup_does_not_spoil_the_other() {
        let error = || LookError::Late { name: "example.com".to_owned() };
        let mut some = Answer::none();
        some.add(["192.0.2.1:50000".parse().unwrap()], Duration::from_secs(5));
        let look = judge("example.com", Err(error()), Ok(some.clone()));
        assert_eq!(look.answer, Some(some));
        assert!(look.failed.is_some());

        let look = judge("example.com", Err(error()), Ok(Answer::none()));
        assert!(look.answer.is_none(), "the last good answer must stay");
        assert_eq!(look.phrase, "DNS query for example.com timed out after 10 s");

        let look = judge("example.com", Ok(Answer::none()), Ok(Answer::none()));
        assert_eq!(look.answer, Some(Answer::none()));
        assert_eq!(
            look.phrase,
            "no SRV record for _muster._udp.example.com and no address for example.com"
        );
    }

    #[test]
    fn a_flood_of_addresses_is_cut() {
        let mut answer = Answer::none();
        let flood = (0..10_000u16).map(|n| SocketAddr::from(([192, 0, 2, 1], n + 1)));
        answer.add(flood, Duration::from_secs(1));
        assert_eq!(answer.addresses.len(), MAX_HINTS_PER_SOURCE);
    }
}
