//! Free ports on loopback. Another process may take a port after it was found here.

use std::net::{SocketAddr, TcpListener, UdpSocket};

/// Finds a port that is free for TCP and UDP. The caller binds the UDP one again at once. Outgoing
/// connections do not take it meanwhile: Linux gives them 32768 to 60999.
pub fn tcp_and_udp() -> (TcpListener, SocketAddr) {
    for _ in 0..50 {
        let address = SocketAddr::from(([127, 0, 0, 1], rand::random_range(10_000..30_000)));
        let Ok(tcp) = TcpListener::bind(address) else { continue };
        if UdpSocket::bind(address).is_ok() {
            return (tcp, address);
        }
    }
    panic!("no port is free for both TCP and UDP");
}

/// An address where no process listens, by TCP or UDP.
pub fn unused_address() -> SocketAddr {
    tcp_and_udp().1
}
