//! Loopback addresses for one cluster: a block `127.X.Y.0/24`. Linux accepts all of 127.0.0.0/8.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

use muster_types::{DEFAULT_PORT, ETCD_CLIENT_PORT, ETCD_PEER_PORT};

/// Range of X to search: far from 127.0.0.0/16, where distributions put their resolvers.
const FIRST: u8 = 64;
const LAST: u8 = 127;

/// Offset of the workers' addresses within a block. Control-plane nodes start at 1.
const WORKERS: u8 = 100;

/// Number of blocks to try.
const TRIES: usize = 64;

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

    /// Finds a block in which all ports of the nodes are free. `random` selects the blocks to try.
    pub(crate) fn find(
        control_planes: u8,
        workers: u8,
        mut random: impl FnMut() -> u16,
    ) -> Result<Self, AddressError> {
        let mut failure = None;
        for _ in 0..TRIES {
            let [high, low] = random().to_be_bytes();
            let block = Self(FIRST + high % (LAST - FIRST + 1), low);
            match block.probe(control_planes, workers) {
                Ok(()) => return Ok(block),
                Err(error) => failure = Some(error),
            }
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

    #[test]
    fn a_block_in_use_is_passed_over() {
        let taken = LoopbackBlock(77, 3);
        let _listener = TcpListener::bind((taken.control_plane(2), DEFAULT_PORT)).unwrap();
        let mut answers = [u16::from_be_bytes([13, 3]), u16::from_be_bytes([13, 4])].into_iter();
        let found = LoopbackBlock::find(3, 1, || answers.next().unwrap()).unwrap();
        assert_eq!(found, LoopbackBlock(77, 4));
        let error = LoopbackBlock::find(3, 1, || u16::from_be_bytes([13, 3])).unwrap_err();
        assert_eq!(error.last, taken.control_plane(2));
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
