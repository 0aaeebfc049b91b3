//! Muster's port is in Linux's range for outgoing connections, so a connection may hold it when a node
//! starts.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::ensure;
use muster_tests::ctl::{binary, output_of};
use muster_tests::lab::inside;
use muster_tests::scenario;
use muster_types::DEFAULT_PORT;

/// Time for which the connection holds the port.
const HELD: Duration = Duration::from_secs(4);

/// The demo of the README failed in a clean clone, because an outgoing connection had been
/// given port 50000.
#[test]
fn a_local_cluster_starts_although_an_outgoing_connection_holds_its_port() {
    scenario("port-held", |lab| {
        let host = lab.host("user")?;
        host.reserve_ports("")?;
        // Like a resolver or a QUIC client: from the unspecified address, not connected. A connected
        // socket has one source address, and holds the port at that one only.
        let outgoing = inside(&host, async || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT))?;
            socket.send_to(b"?", (Ipv4Addr::LOCALHOST, 9))?;
            Ok(socket)
        })?;
        let started = Instant::now();
        let release = std::thread::spawn(move || {
            std::thread::sleep(HELD);
            drop(outgoing);
        });
        let mut create = host.command(binary("musterctl")?);
        create.args(["cluster", "create", "--name", "held", "--control-planes", "1"]);
        create.args(["--workers", "0"]).stdin(Stdio::null());
        create.env("MUSTER_CONFIG", host.dir().join("config"));
        create.env("XDG_STATE_HOME", host.dir().join("state"));
        create.env("MUSTERD", binary("musterd")?);
        output_of(&mut create)?.success()?;
        ensure!(started.elapsed() >= HELD, "it did not wait, so the port was not held");
        release.join().expect("the thread only waits");
        Ok(())
    });
}
