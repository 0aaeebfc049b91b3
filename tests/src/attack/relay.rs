//! A man in the middle: terminates QUIC and TLS on both sides with its own key and passes on every
//! byte of every stream, so that each side receives the other's messages unchanged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use muster_pki::identity::Identity;
use muster_types::wire::ALPN_HELLO;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use super::quic_client::{RecordingVerifier, client, server, socket};
use super::say;

/// Relays indefinitely. Prints `passed UP DOWN` (bytes so far) whenever a stream ends.
pub async fn relay(listen: SocketAddr, target: SocketAddr) -> Result<()> {
    let identity = Arc::new(Identity::generate());
    let endpoint = quinn::Endpoint::server(server(&identity)?, listen)?;
    let passed = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    say("ready")?;
    let mut sessions = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        // A server configuration serves one handshake.
        let connecting = incoming.accept_with(Arc::new(server(&identity)?))?;
        let (identity, passed) = (Arc::clone(&identity), Arc::clone(&passed));
        sessions.spawn(async move {
            // A victim that disconnects does not stop the relay.
            between(connecting, target, &identity, passed).await.ok();
        });
    }
    Ok(())
}

async fn between(
    connecting: quinn::Connecting,
    target: SocketAddr,
    identity: &Identity,
    passed: Arc<[AtomicU64; 2]>,
) -> Result<()> {
    let victim = connecting.await?;
    let config = client(ALPN_HELLO, identity, &RecordingVerifier::default())?;
    let onward = socket()?.connect_with(config, target, "any")?.await?;
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            stream = victim.accept_bi() => {
                let (to_victim, from_victim) = stream?;
                let (to_target, from_target) = onward.open_bi().await?;
                let counts = Arc::clone(&passed);
                streams.spawn(pass(from_victim, to_target, Arc::clone(&counts), 0));
                streams.spawn(pass(from_target, to_victim, counts, 1));
            }
            why = victim.closed() => {
                report(&passed)?;
                onward.close(0u8.into(), b"");
                return Err(why.into());
            }
            why = onward.closed() => {
                report(&passed)?;
                let code = match &why {
                    quinn::ConnectionError::ApplicationClosed(close) => close.error_code,
                    _ => 0u8.into(),
                };
                victim.close(code, b"");
                return Err(why.into());
            }
        }
    }
}

fn report(passed: &[AtomicU64; 2]) -> Result<()> {
    let [up, down] = [0, 1].map(|side| passed[side].load(Ordering::Relaxed));
    say(&format!("passed {up} {down}"))
}

async fn pass(
    mut from: quinn::RecvStream,
    mut to: quinn::SendStream,
    counts: Arc<[AtomicU64; 2]>,
    side: usize,
) -> Result<()> {
    let mut buffer = vec![0; 16 << 10];
    while let Some(read) = from.read(&mut buffer).await? {
        to.write_all(&buffer[..read]).await.context("the other side has gone")?;
        to.flush().await?;
        counts[side].fetch_add(read as u64, Ordering::Relaxed);
    }
    Ok(to.finish()?)
}
