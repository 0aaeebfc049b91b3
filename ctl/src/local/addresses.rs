//! Loopback addresses for one cluster: a block `127.X.Y.0/24`. Linux accepts all of 127.0.0.0/8.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::time::Duration;

use muster_types::{DEFAULT_PORT, ETCD_CLIENT_PORT, ETCD_PEER_PORT};

/// Range of X to search: far from 127.0.0.0/16, where distributions put their resolvers.
const FIRST: u8 = 64;
const LAST: u8 = 127;

/// Offset of the workers' addresses within a block. Control-plane nodes start at 1.
const WORKERS: u8 = 100;

/// Number of blocks to try.
const TRIES: usize = 64;

/// Pause after a block that is in use. 50000 is in Linux's range for outgoing connections, and a
/// socket that is not bound to an address holds it in every block, usually for seconds.
const PAUSE: Duration = Duration::from_millis(500);

/// Error of [`LoopbackBlock::find`].
#[derive(Debug, thiserror::Error)]
#[error(
    "no free loopback addresses in {TRIES} tries, the last at {last} (stop the process that \
     listens there, or destroy another local cluster)"
)]
pub(crate) struct AddressError {
    last: IpAddr,
    source: io::Error,
}

/// A block of loopback addresses, `127.X.Y.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoopbackBlock(u8, u8);

impl fmt::Display for LoopbackBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "127.{}.{}.0/24", self.0, self.1)
    }
}

impl LoopbackBlock {
    /// Address of the n-th control-plane node, from 1.
    pub(crate) fn control_plane(self, number: u8) -> IpAddr {
        self.host(number)
    }

    /// Address of the n-th worker, from 1.
    pub(crate) fn worker(self, number: u8) -> IpAddr {
        self.host(WORKERS.saturating_add(number))
    }

    fn host(self, last: u8) -> IpAddr {
        Ipv4Addr::new(127, self.0, self.1, last).into()
    }

    /// Finds a block in which all ports of the nodes are free. Waits while none is, half a minute at
    /// most. `random` selects the blocks to try.
    pub(crate) fn find(
        control_planes: u8,
        workers: u8,
        random: impl FnMut() -> u16,
    ) -> Result<Self, AddressError> {
        Self::find_with(control_planes, workers, random, std::thread::sleep)
    }

    fn find_with(
        control_planes: u8,
        workers: u8,
        mut random: impl FnMut() -> u16,
        mut pause: impl FnMut(Duration),
    ) -> Result<Self, AddressError> {
        let mut failure = None;
        for _ in 0..TRIES {
            let [high, low] = random().to_be_bytes();
            let block = Self(FIRST + high % (LAST - FIRST + 1), low);
            match block.probe(control_planes, workers) {
                Ok(()) => return Ok(block),
                Err(error) => failure = Some(error),
            }
            pause(PAUSE);
        }
        Err(failure.unwrap_or_else(|| AddressError {
            last: Ipv4Addr::LOCALHOST.into(),
            source: io::ErrorKind::AddrNotAvailable.into(),
        }))
    }

    fn probe(self, control_planes: u8, workers: u8) -> Result<(), AddressError> {
        let control = (1..=control_planes).map(|n| self.control_plane(n));
        let workers = (1..=workers).map(|n| self.worker(n));
        for address in control.chain(workers) {
            let failed = |source| AddressError { last: address, source };
            UdpSocket::bind((address, DEFAULT_PORT)).map_err(failed)?;
            for port in [DEFAULT_PORT, ETCD_CLIENT_PORT, ETCD_PEER_PORT] {
                TcpListener::bind((address, port)).map_err(failed)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `find_with` with these numbers, and returns the pauses as well.
    fn find(random: &[[u8; 2]]) -> (Result<LoopbackBlock, AddressError>, usize) {
        let mut numbers = random.iter().cycle().map(|pair| u16::from_be_bytes(*pair));
        let mut pauses = 0;
        let found = LoopbackBlock::find_with(3, 1, || numbers.next().unwrap(), |_| pauses += 1);
        (found, pauses)
    }

    #[test]
    fn a_block_in_use_is_passed_over() {
        let taken = LoopbackBlock(77, 3);
        let _listener = TcpListener::bind((taken.control_plane(2), DEFAULT_PORT)).unwrap();
        let (found, pauses) = find(&[[13, 3], [13, 4]]);
        assert_eq!((found.unwrap(), pauses), (LoopbackBlock(77, 4), 1));
        let (error, pauses) = find(&[[13, 3]]);
        assert_eq!((error.unwrap_err().last, pauses), (taken.control_plane(2), TRIES));
    }

    /// `cluster create` failed because an outgoing connection had been given port 50000.
    #[test]
    fn a_port_that_an_outgoing_connection_holds_is_waited_for() {
        let block = LoopbackBlock(77, 5);
        let outgoing = UdpSocket::bind((block.control_plane(3), DEFAULT_PORT)).unwrap();
        outgoing.connect((block.control_plane(1), 9)).unwrap();
        let mut outgoing = Some(outgoing);
        let mut pauses = 0;
        let pause = |_| {
            pauses += 1;
            outgoing = outgoing.take().filter(|_| pauses < 3);
        };
        let found = LoopbackBlock::find_with(3, 1, || u16::from_be_bytes([13, 5]), pause);
        assert_eq!((found.unwrap(), pauses), (block, 3));
    }

    #[test]
    fn every_block_is_loopback_and_no_two_nodes_share_an_address() {
        for random in [0, 255, 256, u16::MAX] {
            let [high, low] = u16::to_be_bytes(random);
            let block = LoopbackBlock(FIRST + high % (LAST - FIRST + 1), low);
            assert!(block.control_plane(7).is_loopback());
            assert_ne!(block.control_plane(99), block.worker(1));
        }
    }
}
