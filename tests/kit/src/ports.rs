//! Free ports on loopback. Another process may take a port after it was found here.

use std::net::{SocketAddr, TcpListener, UdpSocket};

/// Finds a port that is free for TCP and UDP. The caller binds the UDP one again at once.
pub fn tcp_and_udp() -> (TcpListener, SocketAddr) {
    for _ in 0..50 {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
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
