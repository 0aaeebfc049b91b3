//! Static peers from the config: addresses directly, host names through DNS.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use muster_types::number::parse_digits;

use super::dns::{Backoff, Resolver};
use super::{MAX_HINTS_PER_SOURCE, Reporter};

/// An entry of `discovery.static`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StaticPeer {
    /// An address; without a port, the node's own port applies.
    Address { ip: IpAddr, port: Option<u16> },
    /// A host name.
    Host { name: String, port: Option<u16> },
}

/// The text is not a valid entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not an address or a host name with an optional port, such as host:50000")]
pub struct StaticPeerError {
    found: String,
}

impl FromStr for StaticPeer {
    type Err = StaticPeerError;

    fn from_str(text: &str) -> Result<Self, StaticPeerError> {
        let invalid = || StaticPeerError { found: text.chars().take(80).collect() };
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => Err(invalid()),
                port => Ok(Self::Address { ip: address.ip(), port: Some(port) }),
            };
        }
        if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(Self::Address { ip, port: None });
        }
        let (name, port) = match text.split_once(':') {
            None => (text, None),
            Some((name, port)) => {
                let port = parse_digits(port).filter(|port| *port != 0).ok_or_else(invalid)?;
                (name, Some(port))
            }
        };
        if is_host_name(name) {
            Ok(Self::Host { name: name.to_owned(), port })
        } else {
            Err(invalid())
        }
    }
}

fn is_host_name(name: &str) -> bool {
    let labels = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253
        && labels.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// The parsed entries of the config.
#[derive(Default)]
struct ParsedPeers {
    addresses: BTreeSet<SocketAddr>,
    names: Vec<(String, u16)>,
    invalid: Option<StaticPeerError>,
}

impl ParsedPeers {
    fn parse(texts: &[String], port: u16) -> Self {
        let mut parsed = Self::default();
        for text in texts.iter().take(MAX_HINTS_PER_SOURCE) {
            match text.parse() {
                Ok(StaticPeer::Address { ip, port: own }) => {
                    parsed.addresses.insert(SocketAddr::new(ip, own.unwrap_or(port)));
                }
                Ok(StaticPeer::Host { name, port: own }) => {
                    parsed.names.push((name, own.unwrap_or(port)));
                }
                Err(error) => parsed.invalid = Some(error),
            }
        }
        parsed
    }
}

/// Reports the addresses immediately and looks up the names periodically until aborted.
pub(super) async fn run(texts: Vec<String>, port: u16, resolver: Resolver, mut reporter: Reporter) {
    let ParsedPeers { addresses, names, invalid } = ParsedPeers::parse(&texts, port);
    let description = match &invalid {
        Some(error) => error.to_string(),
        None => format!("{} addresses", addresses.len()),
    };
    reporter.report(addresses.clone(), description, invalid.is_some()).await;
    if names.is_empty() {
        return std::future::pending().await;
    }
    let mut backoff = Backoff::new();
    let mut known = vec![BTreeSet::new(); names.len()];
    loop {
        let round = look_up(&names, &resolver, &mut known).await;
        let hints: BTreeSet<_> = addresses.iter().chain(known.iter().flatten()).copied().collect();
        let pause = match round.problem {
            None => backoff.on_found(round.ttl),
            Some(_) => backoff.on_empty(),
        };
        let description = round.problem.unwrap_or_else(|| format!("{} addresses", hints.len()));
        reporter.report(hints, description, round.failing).await;
        if reporter.wait(pause).await {
            backoff.reset();
        }
    }
}

struct LookupRound {
    ttl: Duration,
    problem: Option<String>,
    failing: bool,
}

/// Looks up every name once. A name whose lookup fails keeps its last good answer.
async fn look_up(
    names: &[(String, u16)],
    resolver: &Resolver,
    known: &mut [BTreeSet<SocketAddr>],
) -> LookupRound {
    let mut round = LookupRound { ttl: Duration::MAX, problem: None, failing: false };
    for ((name, port), known) in names.iter().zip(known) {
        match resolver.addresses(name, *port).await {
            Ok(answer) => {
                if answer.addresses.is_empty() {
                    round.problem.get_or_insert_with(|| format!("no address for {name}"));
                }
                round.ttl = round.ttl.min(answer.ttl);
                *known = answer.addresses;
            }
            Err(error) => {
                round.failing = true;
                round.problem = Some(error.to_string());
            }
        }
    }
    round
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_an_address_or_a_name_with_an_optional_port() {
        let address = |ip: &str, port| StaticPeer::Address { ip: ip.parse().unwrap(), port };
        let host = |name: &str, port| StaticPeer::Host { name: name.to_owned(), port };
        for (text, wanted) in [
            ("192.0.2.7:4000", address("192.0.2.7", Some(4000))),
            ("192.0.2.7", address("192.0.2.7", None)),
            ("[2001:db8::1]:4000", address("2001:db8::1", Some(4000))),
            ("[2001:db8::1]", address("2001:db8::1", None)),
            ("2001:db8::1", address("2001:db8::1", None)),
            ("cp-1.example.com:4000", host("cp-1.example.com", Some(4000))),
            ("cp-1", host("cp-1", None)),
        ] {
            assert_eq!(text.parse(), Ok(wanted), "{text}");
        }
        for invalid in [
            "",
            ":50000",
            "a b:1",
            "host:",
            "host:0",
            "host:99999",
            "host:+1",
            "192.0.2.7:0",
            "ä:1",
        ] {
            assert!(invalid.parse::<StaticPeer>().is_err(), "{invalid}");
        }
    }
}
