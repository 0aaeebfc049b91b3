//! Checks of the ports before anything is started. Binds none for longer than a moment, and does not
//! wait for this node's own: [`crate::ports`] does.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use muster_init::facts;
use muster_types::{ETCD_CLIENT_PORT, ETCD_PEER_PORT};

use super::Addresses;
use crate::fatal::Fatal;
use crate::ports::show_command;

/// A port that cannot be bound now.
#[derive(Debug)]
pub(super) struct PortProblem {
    protocol: &'static str,
    address: SocketAddr,
    error: io::Error,
    is_etcd: bool,
}

impl PortProblem {
    /// Returns true if another program has the port now.
    pub(super) fn is_busy(&self) -> bool {
        self.error.kind() == io::ErrorKind::AddrInUse
    }

    /// Returns true if time can resolve it: an outgoing connection may hold the port for a moment,
    /// and an address may be assigned later.
    pub(super) fn may_pass(&self) -> bool {
        self.is_busy() || self.error.kind() == io::ErrorKind::AddrNotAvailable
    }
}

impl fmt::Display for PortProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, address, error, is_etcd } = self;
        write!(f, "{protocol} {address}")?;
        if *is_etcd {
            write!(f, ", which etcd needs")?;
        }
        write!(f, ": {error}; ")?;
        if self.error.kind() == io::ErrorKind::AddrNotAvailable {
            return write!(f, "this machine does not have the address {}", address.ip());
        }
        write!(f, "{} shows the program that uses the port", show_command(*address))?;
        if *is_etcd {
            write!(f, "; to stop an etcd service on Debian: `systemctl disable --now etcd`")?;
        }
        Ok(())
    }
}

/// Returns the problems of this node's own two ports.
pub(super) fn problems(address: SocketAddr) -> impl Iterator<Item = PortProblem> {
    let probes = [
        ("UDP", UdpSocket::bind(address).map(drop)),
        ("TCP", TcpListener::bind(address).map(drop)),
    ];
    probes.into_iter().filter_map(move |(protocol, probe)| {
        Some(PortProblem { protocol, address, error: probe.err()?, is_etcd: false })
    })
}

/// Returns the first problem of etcd's ports at this node's address.
pub(super) fn etcd_problem(addresses: &Addresses) -> Result<Option<PortProblem>, Fatal> {
    let found = facts::addresses(|address| addresses.includes(address))
        .map_err(|error| Fatal::Machine(muster_types::error::chain(&error)))?;
    let Some(address) = addresses.reachable(&found, None).first().map(SocketAddr::ip) else {
        return Ok(None);
    };
    let ports = [ETCD_CLIENT_PORT, ETCD_PEER_PORT].map(|port| SocketAddr::new(address, port));
    Ok(ports.into_iter().find_map(|address| {
        let error = TcpListener::bind(address).err()?;
        Some(PortProblem { protocol: "TCP", address, error, is_etcd: true })
    }))
}
