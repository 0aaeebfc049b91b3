//! The machine's addresses, and the one to advertise.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch as channel;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Polling interval of a watch. Addresses change rarely, and the kernel answers in microseconds.
const POLL: Duration = Duration::from_secs(5);

/// An address of an interface that is up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface {
    /// Name of the interface, such as `eth0`.
    pub name: String,
    pub address: IpAddr,
}

/// The kernel did not list the addresses.
#[derive(Debug, thiserror::Error)]
#[error("cannot list the addresses of this machine")]
pub struct AddressesError(#[source] io::Error);

/// All addresses that `wanted` accepts, sorted and without duplicates.
pub fn addresses(wanted: impl Fn(IpAddr) -> bool) -> Result<Vec<Interface>, AddressesError> {
    let all = if_addrs::get_if_addrs().map_err(AddressesError)?;
    let mut found: Vec<_> = all
        .into_iter()
        .filter(if_addrs::Interface::is_oper_up)
        .map(|interface| Interface { address: interface.ip(), name: interface.name })
        .filter(|interface| wanted(interface.address))
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Scope that an advertised address must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressScope {
    /// Reachable from other machines.
    Routable,
    /// Loopback and link-local are accepted if there is no other: the configuration names them.
    Local,
}

/// The address to advertise: public or private unicast first, then IPv4 before IPv6. Among equals,
/// prefers the one advertised `before`, so that a machine with several does not switch.
pub fn best_address(
    found: &[Interface],
    before: Option<IpAddr>,
    scope: AddressScope,
) -> Option<IpAddr> {
    let usable = found.iter().map(|interface| interface.address);
    let usable = usable.filter(|address| match scope {
        AddressScope::Routable => rank(*address) < Rank::Local,
        AddressScope::Local => rank(*address) < Rank::Unusable,
    });
    usable.min_by_key(|a| (rank(*a), Some(*a) != before, a.is_ipv6(), *a))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Unicast,
    Local,
    Unusable,
}

fn rank(address: IpAddr) -> Rank {
    let (local, unusable) = match address {
        IpAddr::V4(a) => (
            a.is_loopback() || a.is_link_local(),
            a.is_unspecified() || a.is_multicast() || a.is_broadcast(),
        ),
        IpAddr::V6(a) => {
            (a.is_loopback() || a.is_unicast_link_local(), a.is_unspecified() || a.is_multicast())
        }
    };
    match (unusable, local) {
        (true, _) => Rank::Unusable,
        (false, true) => Rank::Local,
        (false, false) => Rank::Unicast,
    }
}

/// Watches the addresses that `wanted` accepts. The caller spawns the future, which ends with
/// `stop`; the receiver holds the addresses found by the last poll.
pub fn watch(
    wanted: impl Fn(IpAddr) -> bool + Send + 'static,
    stop: CancellationToken,
) -> (channel::Receiver<Vec<Interface>>, impl Future<Output = ()> + Send) {
    let (publish, addresses_now) = channel::channel(addresses(&wanted).unwrap_or_default());
    let follow = async move {
        let mut polls = tokio::time::interval(POLL);
        while stop.run_until_cancelled(polls.tick()).await.is_some() {
            let found = match addresses(&wanted) {
                Ok(found) => found,
                Err(error) => {
                    warn!(error = %error.0, "addresses of this machine cannot be listed");
                    continue;
                }
            };
            publish.send_if_modified(|known| {
                let changed = *known != found;
                if changed {
                    info!(addresses = found.len(), "addresses of this machine changed");
                    *known = found;
                }
                changed
            });
        }
    };
    (addresses_now, follow)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(addresses: &[&str]) -> Vec<Interface> {
        let parse = |a: &&str| Interface { name: "eth0".to_owned(), address: a.parse().unwrap() };
        addresses.iter().map(parse).collect()
    }

    #[test]
    fn a_routable_address_is_told_and_kept() {
        let all =
            found(&["127.0.0.1", "169.254.1.1", "fe80::1", "fd00::1", "10.0.0.9", "10.0.0.5"]);
        let advertised = best_address(&all, None, AddressScope::Routable);
        assert_eq!(advertised, Some("10.0.0.5".parse().unwrap()));
        let before = "10.0.0.9".parse().unwrap();
        assert_eq!(best_address(&all, Some(before), AddressScope::Routable), Some(before));
        let gone = "10.0.0.77".parse().unwrap();
        assert_eq!(best_address(&all, Some(gone), AddressScope::Routable), advertised);
        assert_eq!(
            best_address(&found(&["::1", "fd00::1"]), None, AddressScope::Routable),
            "fd00::1".parse().ok()
        );
    }

    #[test]
    fn loopback_is_told_only_when_it_was_asked_for() {
        let all = found(&["127.0.0.1", "127.88.0.1"]);
        assert_eq!(best_address(&all, None, AddressScope::Routable), None);
        assert_eq!(best_address(&all, None, AddressScope::Local), "127.0.0.1".parse().ok());
    }

    #[tokio::test]
    async fn a_watch_knows_the_addresses_from_the_start() {
        let stop = CancellationToken::new();
        let (known, follow) = watch(|address| address.is_loopback(), stop.clone());
        assert!(known.borrow().iter().any(|found| found.address.is_loopback()));
        stop.cancel();
        follow.await;
    }
}
