//! The addresses of this node: which one to bind, and which ones other nodes may use. Does not watch
//! for changes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use muster_config::{Config, Subnet};
use muster_init::facts::{self, AddressScope, Interface};

use super::wait::NotReady;
use crate::fatal::Fatal;

/// Address to bind, and the rule for the addresses at which other nodes reach this one.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Address to bind, for UDP and TCP.
    pub bind: SocketAddr,
    /// Configured addresses. Empty: use the machine's own addresses.
    configured: Vec<IpAddr>,
    /// Subnets of the machine's addresses to use. Empty: all routable addresses.
    subnets: Vec<Subnet>,
}

impl Addresses {
    /// Returns true if this address of the machine is to be used.
    pub fn includes(&self, address: IpAddr) -> bool {
        if !self.configured.is_empty() {
            return self.configured.contains(&address);
        }
        self.subnets.is_empty() || self.subnets.iter().any(|subnet| subnet.contains(address))
    }

    /// Returns the addresses at which other nodes reach this one, best first, given the machine's
    /// addresses. `before` is the best address so far.
    pub fn reachable(&self, found: &[Interface], before: Option<IpAddr>) -> Vec<SocketAddr> {
        let addresses = if self.configured.is_empty() {
            self.best(found, before).into_iter().collect()
        } else {
            self.configured.clone()
        };
        let same_family = |ip: &IpAddr| self.bind.is_ipv6() == ip.is_ipv6();
        let port = self.bind.port();
        addresses.into_iter().filter(same_family).map(|ip| SocketAddr::new(ip, port)).collect()
    }

    fn best(&self, found: &[Interface], before: Option<IpAddr>) -> Option<IpAddr> {
        let reach =
            if self.subnets.is_empty() { AddressScope::Routable } else { AddressScope::Local };
        self.configured.first().copied().or_else(|| facts::best_address(found, before, reach))
    }
}

/// Chooses the addresses. `given` is the only one to use, if there is one.
pub(super) fn choose(given: Option<IpAddr>, config: &Config) -> Result<Addresses, NotReady> {
    let port = config.network.port;
    let configured = match given {
        Some(address) => vec![address],
        None => config.network.addresses.clone(),
    };
    let unspecified = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let subnets = config.network.subnets.clone();
    let mut addresses = Addresses { bind: unspecified, configured, subnets };
    let found = facts::addresses(|address| addresses.includes(address))
        .map_err(|error| Fatal::Machine(muster_types::error::chain(&error)))?;
    let best = addresses.best(&found, None);
    let best = best.ok_or_else(|| {
        NotReady::Awaited(
            "an address that other nodes can reach: this machine has only loopback and link-local \
             ones, or none in machine.network.subnets; configure one, or give --address"
                .to_owned(),
        )
    })?;
    let bind = match (given, best) {
        (Some(address), _) => address,
        (None, IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        (None, IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
    };
    addresses.bind = SocketAddr::new(bind, port);
    Ok(addresses)
}
