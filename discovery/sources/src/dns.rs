//! Peers listed in DNS: SRV records of `_muster._udp.<domain>` and the addresses of `<domain>`.
//!
//! Looks again when the shortest TTL runs out, sooner while nothing is found. Answers are bounded
//! before they are used. DNS is never trusted for more than an address.

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

/// The service label of RFC 2782 under which a domain lists its nodes.
pub const SERVICE: &str = "_muster._udp";

/// SRV targets that are followed at most.
const MAX_TARGETS: usize = 32;
/// The first pause after a look that found nothing, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Bounds on a TTL: below, it would be a flood; above, a changed record would stay unseen.
const REFRESH: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(1));
/// One question to one server, and one whole look.
const QUESTION: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_secs(10);

/// Why DNS gave no answer. "No such record" is an answer, not an error.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error("{name:?} is not a DNS name")]
    Name { name: String },
    #[error("no DNS server could be asked about {name}: {reason}")]
    Unanswered { name: String, reason: String },
    #[error("DNS did not answer about {name} within {} s", LOOK.as_secs())]
    Late { name: String },
    #[error("the system's DNS configuration cannot be used: {reason}; set discovery.dns.servers")]
    System { reason: String },
}

/// Addresses, and how long they may be believed.
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

/// Asks the chosen servers, or those the system names at the time of the question.
#[derive(Debug, Clone)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
}

impl Resolver {
    /// `servers` empty means the system's (`/etc/resolv.conf`, read anew at each look).
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers }
    }

    /// The addresses of `host` with `port`; empty when DNS knows none.
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

    /// The targets of `_muster._udp.<domain>`, each with its port; empty when there is no record.
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
            // A target that cannot be resolved must not hide the others.
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
        options.cache_size = 0; // our own pace honours TTLs; a look must see what is there now
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

/// The name from the root, so that no search list is tried.
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

/// How long to wait for the next look: the TTL when something was found, else ever longer.
#[derive(Debug)]
pub(super) struct Pace {
    next_retry: Duration,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { next_retry: RETRY.0 }
    }

    /// The pause after a look that found something believable for `ttl`.
    pub(super) fn found(&mut self, ttl: Duration) -> Duration {
        self.next_retry = RETRY.0;
        ttl.clamp(REFRESH.0, REFRESH.1)
    }

    /// The pause after a look that found nothing or failed.
    pub(super) fn empty(&mut self) -> Duration {
        let pause = self.next_retry;
        self.next_retry = (pause * 2).min(RETRY.1);
        pause
    }

    /// Somebody wants to see something: start from short pauses again.
    pub(super) fn hurry(&mut self) {
        self.next_retry = RETRY.0;
    }
}

/// Looks under `domain` for ever.
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
    /// None when nothing could be learned.
    answer: Option<Answer>,
    phrase: String,
    failed: Option<LookError>,
}

/// Both lookups as one answer and one phrase. One that fails does not spoil the other's answer.
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
        assert_eq!(look.phrase, "DNS did not answer about example.com within 10 s");

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
