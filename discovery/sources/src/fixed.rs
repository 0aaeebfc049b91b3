//! Static peers from the config: addresses directly, host names through DNS.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use super::dns::{Pace, Resolver};
use super::{MAX_HINTS_PER_SOURCE, Outlet};

/// An entry of `discovery.static`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An address; without a port, the node's own port applies.
    Address { ip: IpAddr, port: Option<u16> },
    /// A host name.
    Host { name: String, port: Option<u16> },
}

/// The text is not a valid entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not an address or a host name with an optional port, such as host:50000")]
pub struct EntryError {
    found: String,
}

impl FromStr for Entry {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, EntryError> {
        let wrong = || EntryError { found: text.chars().take(80).collect() };
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => Err(wrong()),
                port => Ok(Self::Address { ip: address.ip(), port: Some(port) }),
            };
        }
        if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(Self::Address { ip, port: None });
        }
        let (name, port) = match text.split_once(':') {
            None => (text, None),
            Some((name, port)) => {
                let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
                (name, Some(port))
            }
        };
        if is_host_name(name) {
            Ok(Self::Host { name: name.to_owned(), port })
        } else {
            Err(wrong())
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
struct Entries {
    addresses: BTreeSet<SocketAddr>,
    names: Vec<(String, u16)>,
    wrong: Option<EntryError>,
}

impl Entries {
    fn parse(texts: &[String], port: u16) -> Self {
        let mut entries = Self::default();
        for text in texts.iter().take(MAX_HINTS_PER_SOURCE) {
            match text.parse() {
                Ok(Entry::Address { ip, port: own }) => {
                    entries.addresses.insert(SocketAddr::new(ip, own.unwrap_or(port)));
                }
                Ok(Entry::Host { name, port: own }) => {
                    entries.names.push((name, own.unwrap_or(port)));
                }
                Err(error) => entries.wrong = Some(error),
            }
        }
        entries
    }
}

/// Reports the addresses immediately and looks up the names periodically until aborted.
pub(super) async fn run(texts: Vec<String>, port: u16, resolver: Resolver, mut outlet: Outlet) {
    let Entries { addresses, names, wrong } = Entries::parse(&texts, port);
    let phrase = match &wrong {
        Some(error) => error.to_string(),
        None => format!("{} addresses", addresses.len()),
    };
    outlet.say(addresses.clone(), phrase, wrong.is_some()).await;
    if names.is_empty() {
        return std::future::pending().await;
    }
    let mut pace = Pace::new();
    let mut known = vec![BTreeSet::new(); names.len()];
    loop {
        let turn = look_up(&names, &resolver, &mut known).await;
        let hints: BTreeSet<_> = addresses.iter().chain(known.iter().flatten()).copied().collect();
        let pause = match turn.trouble {
            None => pace.found(turn.ttl),
            Some(_) => pace.empty(),
        };
        let phrase = turn.trouble.unwrap_or_else(|| format!("{} addresses", hints.len()));
        outlet.say(hints, phrase, turn.failing).await;
        if outlet.rest(pause).await {
            pace.hurry();
        }
    }
}

struct Turn {
    ttl: Duration,
    trouble: Option<String>,
    failing: bool,
}

/// Looks up every name once. A name whose lookup fails keeps its last good answer.
async fn look_up(
    names: &[(String, u16)],
    resolver: &Resolver,
    known: &mut [BTreeSet<SocketAddr>],
) -> Turn {
    let mut turn = Turn { ttl: Duration::MAX, trouble: None, failing: false };
    for ((name, port), known) in names.iter().zip(known) {
        match resolver.addresses(name, *port).await {
            Ok(answer) => {
                if answer.addresses.is_empty() {
                    turn.trouble.get_or_insert_with(|| format!("no address for {name}"));
                }
                turn.ttl = turn.ttl.min(answer.ttl);
                *known = answer.addresses;
            }
            Err(error) => {
                turn.failing = true;
                turn.trouble = Some(error.to_string());
            }
        }
    }
    turn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_an_address_or_a_name_with_an_optional_port() {
        let address = |ip: &str, port| Entry::Address { ip: ip.parse().unwrap(), port };
        let host = |name: &str, port| Entry::Host { name: name.to_owned(), port };
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
        for wrong in ["", ":50000", "a b:1", "host:", "host:0", "host:99999", "192.0.2.7:0", "ä:1"]
        {
            assert!(wrong.parse::<Entry>().is_err(), "{wrong}");
        }
    }
}
