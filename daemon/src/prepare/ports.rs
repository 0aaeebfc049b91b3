//! Checks of the ports before anything is started. Binds none for longer than a moment, and does not
//! wait for this node's own: [`crate::ports`] does.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use muster_init::facts;
use muster_types::{ETCD_CLIENT_PORT, ETCD_PEER_PORT};

use super::Addresses;
use crate::fatal::Fatal;
use crate::ports::show_command;
use crate::state_dir::StateDir;

/// Time limit for the etcd of a killed `musterd` to exit. A busy machine first frees its memory and
/// its files.
const ETCD_EXIT_TIMEOUT: Duration = Duration::from_secs(10);

/// A port that cannot be bound now.
#[derive(Debug)]
pub(super) struct PortProblem {
    protocol: &'static str,
    address: SocketAddr,
    error: io::Error,
}

impl PortProblem {
    /// Returns true if time can resolve it: an outgoing connection may hold the port for a moment.
    pub(super) fn is_busy(&self) -> bool {
        self.error.kind() == io::ErrorKind::AddrInUse
    }
}

impl fmt::Display for PortProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, address, error } = self;
        write!(
            f,
            "cannot listen on {protocol} {address}: {error}; if another musterd or another program \
             uses the port, {} shows it",
            show_command(*address)
        )
    }
}

/// Returns the problems of this node's own two ports.
pub(super) fn problems(address: SocketAddr) -> impl Iterator<Item = PortProblem> {
    let probes = [
        ("UDP", UdpSocket::bind(address).map(drop)),
        ("TCP", TcpListener::bind(address).map(drop)),
    ];
    probes.into_iter().filter_map(move |(protocol, probe)| {
        Some(PortProblem { protocol, address, error: probe.err()? })
    })
}

/// Checks that etcd's ports can be bound at this node's address. The etcd of a killed `musterd`
/// exits a moment later, so a node that has run etcd before waits for that.
pub(super) fn check_etcd_ports(addresses: &Addresses, state_dir: &Path) -> Result<(), Fatal> {
    let found = facts::addresses(|address| addresses.includes(address))
        .map_err(|error| Fatal::Machine(muster_types::error::chain(&error)))?;
    let Some(address) = addresses.reachable(&found, None).first().map(SocketAddr::ip) else {
        return Ok(());
    };
    let has_run = StateDir::etcd_in(state_dir).exists();
    let deadline = Instant::now() + if has_run { ETCD_EXIT_TIMEOUT } else { Duration::ZERO };
    for port in [ETCD_CLIENT_PORT, ETCD_PEER_PORT] {
        let socket = SocketAddr::new(address, port);
        while let Err(error) = TcpListener::bind(socket) {
            if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            return Err(Fatal::Machine(format!(
                "cannot listen on TCP {socket}, which etcd needs: {error}; `ss -ltnp 'sport = \
                 {port}'` shows the program that uses it; to stop an etcd service on Debian: \
                 `systemctl disable --now etcd`"
            )));
        }
    }
    Ok(())
}
