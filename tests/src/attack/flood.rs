//! Floods on both ports, bounded in count and time. Prints `PHASE: COUNT of ALL …`: what reached
//! the target, as far as this side can measure.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use muster_pki::identity::Identity;
use muster_types::wire::{ALPN_HELLO, ALPN_NODE};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::quic_client::{PREFACE, RecordingVerifier, client, socket};
use super::say;

/// Fixed, so that every run sends the same bytes.
const SEED: u64 = 8;

/// Number of noise datagrams, and of corrupted first packets.
const DATAGRAMS: usize = 20_000;

/// Number of handshakes that begin and never continue.
const HALF_OPEN: usize = 4_000;

/// Number of concurrent half-open handshakes.
const WAVE: usize = 100;

/// Number of QUIC sessions of strangers that misbehave.
const SESSIONS: usize = 400;

/// Timeout of each of them for a session.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(12);

/// Number of TCP connections, in total and at once.
const CONNECTIONS: usize = 3_000;
const AT_ONCE: usize = 600;

/// Time for which each batch of TCP connections is held open.
const HOLD: Duration = Duration::from_secs(3);

/// Runs all phases, one after the other.
pub async fn flood(target: SocketAddr) -> Result<()> {
    noise(target)?;
    corrupted(target)?;
    half_open(target)?;
    sessions(target).await?;
    let blocking = tokio::task::spawn_blocking(move || connections(target));
    blocking.await??;
    Ok(())
}

/// Returns 1 if the packet was sent. The kernel drops what does not fit; a pause now and then lets
/// the target receive most of it.
fn send(socket: &UdpSocket, packet: &[u8], target: SocketAddr, number: usize) -> usize {
    let sent = socket.send_to(packet, target);
    if number.is_multiple_of(50) {
        std::thread::sleep(Duration::from_millis(2));
    }
    usize::from(sent.is_ok())
}

fn noise(target: SocketAddr) -> Result<()> {
    let (socket, mut random) = (UdpSocket::bind("0.0.0.0:0")?, StdRng::seed_from_u64(SEED));
    let mut sent = 0;
    for number in 0..DATAGRAMS {
        let mut packet = vec![0; random.random_range(0..1500)];
        random.fill(packet.as_mut_slice());
        sent += send(&socket, &packet, target, number);
    }
    say(&format!("noise: {sent} of {DATAGRAMS} datagrams were sent"))
}

/// Returns the first packet of a handshake that will never continue.
fn first_packet(alpn: &[u8], target: SocketAddr) -> Result<Vec<u8>> {
    let config = client(alpn, &Identity::generate(), &RecordingVerifier::default())?;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[1; 32]);
    let endpoint = quinn::EndpointConfig::new(Arc::new(key));
    let mut endpoint = quinn_proto::Endpoint::new(Arc::new(endpoint), None, true, None);
    let now = Instant::now();
    let (_, mut connection) = endpoint.connect(now, config, target, "any")?;
    let mut packet = Vec::new();
    let transmit = connection.poll_transmit(now, 1, &mut packet);
    if transmit.is_some() { Ok(packet) } else { bail!("the client has no first packet") }
}

/// Sends first packets that are truncated, extended, or changed in some bytes.
fn corrupted(target: SocketAddr) -> Result<()> {
    let (socket, mut random) = (UdpSocket::bind("0.0.0.0:0")?, StdRng::seed_from_u64(SEED));
    let whole = first_packet(ALPN_HELLO, target)?;
    let mut sent = 0;
    for number in 0..DATAGRAMS {
        let mut packet = whole.clone();
        match number % 3 {
            0 => packet.truncate(random.random_range(0..whole.len())),
            1 => packet.resize(random.random_range(whole.len()..65_000), 0xff),
            _ => {
                for _ in 0..4 {
                    let at = random.random_range(0..packet.len());
                    packet[at] ^= 1 << random.random_range(0..8);
                }
            }
        }
        sent += send(&socket, &packet, target, number);
    }
    say(&format!("corrupted: {sent} of {DATAGRAMS} datagrams were sent"))
}

/// Sends first packets only. The target answers each that it has seen: it continues, asks for a
/// proof of the address, or refuses.
fn half_open(target: SocketAddr) -> Result<()> {
    let mut answered = 0;
    for begin in (0..HALF_OPEN).step_by(WAVE) {
        let mut sockets = Vec::new();
        for number in begin..begin + WAVE {
            let alpn = if number % 2 == 0 { ALPN_HELLO } else { ALPN_NODE };
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_nonblocking(true)?;
            send(&socket, &first_packet(alpn, target)?, target, number);
            sockets.push(socket);
        }
        std::thread::sleep(Duration::from_millis(20));
        answered += sockets.iter().filter(|socket| socket.recv(&mut [0; 2048]).is_ok()).count();
    }
    say(&format!("half-open: {answered} of {HALF_OPEN} handshakes were answered"))
}

/// Opens sessions as strangers. Some only wait, the others send malformed frames and read nothing.
async fn sessions(target: SocketAddr) -> Result<()> {
    let mut strangers = JoinSet::new();
    for number in 0..SESSIONS {
        strangers.spawn(async move {
            // Permits are few and returned after some time. A rejected stranger tries again.
            let connection = timeout(CONNECT_TIMEOUT, connect_with_retry(target)).await??;
            misbehave(&connection, number).await.ok();
            timeout(Duration::from_secs(10), connection.closed()).await.ok();
            anyhow::Ok(())
        });
        if number.is_multiple_of(20) {
            sleep(Duration::from_millis(100)).await;
        }
    }
    let mut let_in = 0;
    while let Some(ended) = strangers.join_next().await {
        let_in += usize::from(ended?.is_ok());
    }
    say(&format!("sessions: {let_in} of {SESSIONS} strangers were let in"))
}

async fn misbehave(connection: &quinn::Connection, number: usize) -> Result<()> {
    let (mut send, _unread) = connection.open_bi().await?;
    let frame: &[u8] = match number % 6 {
        0 => return Ok(()),
        // Noise instead of HTTP/2.
        1 => &[0xa5; 4096],
        // Pings whose answers are never read.
        2 => b"\0\0\x08\x06\0\0\0\0\0muster!!",
        // Settings, likewise.
        3 => b"\0\0\0\x04\0\0\0\0\0",
        // A frame of 16 MiB less one byte.
        4 => b"\xff\xff\xff\0\x01\0\0\0\x01xxxxxxxxxxxxxxxxxxxxxxxxx",
        // An endless header block.
        _ => b"\0\0\x10\x09\0\0\0\0\x01aaaaaaaaaaaaaaaa",
    };
    if number % 6 != 1 {
        send.write_all(PREFACE).await?;
    }
    if number % 6 == 5 {
        send.write_all(b"\0\0\x01\x01\0\0\0\0\x01\x82").await?;
    }
    let frames = frame.repeat((64 << 10) / frame.len());
    for _ in 0..64 {
        timeout(Duration::from_secs(5), send.write_all(&frames)).await??;
    }
    Ok(())
}

/// Retries until it has a session.
async fn connect_with_retry(target: SocketAddr) -> Result<quinn::Connection> {
    let (socket, identity) = (socket()?, Identity::generate());
    loop {
        let config = client(ALPN_HELLO, &identity, &RecordingVerifier::default())?;
        match socket.connect_with(config, target, "any")?.await {
            Ok(connection) => return Ok(connection),
            Err(_) => sleep(Duration::from_millis(500)).await,
        }
    }
}

/// Opens TCP connections: silent, with half a TLS record, with noise, or sending one byte at a
/// time.
fn connections(target: SocketAddr) -> Result<()> {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut opened = 0;
    for _ in 0..CONNECTIONS / AT_ONCE {
        let mut streams = Vec::new();
        for number in 0..AT_ONCE {
            let Ok(mut stream) = TcpStream::connect_timeout(&target, Duration::from_secs(2)) else {
                continue;
            };
            stream.set_nonblocking(true)?;
            opened += 1;
            let mut noise = vec![0; random.random_range(1..4096)];
            random.fill(noise.as_mut_slice());
            // The target may have closed it already.
            match number % 4 {
                0 => {}
                1 => drop(stream.write_all(b"\x16\x03\x01\x3f\xff\x01\0\x3f\xfb\x03\x03")),
                2 => drop(stream.write_all(&noise)),
                _ => drop(stream.write_all(b"\x16")),
            }
            streams.push(stream);
        }
        let end = Instant::now() + HOLD;
        while Instant::now() < end {
            for stream in streams.iter_mut().skip(3).step_by(4) {
                stream.write_all(b"\x03").ok();
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    say(&format!("connections: {opened} of {CONNECTIONS} over TCP were opened"))
}
