//! Dials one peer at several addresses; the first that answers wins.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use muster_types::error::chain;
use tokio::time::{Instant, sleep_until};

use crate::endpoint::close::DisconnectReason;
use crate::endpoint::parameters::HANDSHAKE_TIMEOUT;
use crate::endpoint::tls::SERVER_NAME;

/// Pause between attempts on different addresses (RFC 8305 section 5 recommends 250 ms).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Pause between attempts on the same address; doubles. With QUIC's own retransmissions a first
/// packet leaves every second. A peer is thus reached within one second after the network heals.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Reasons why a peer was not reached.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DialError {
    #[error("no address of the peer is known")]
    NoAddress,
    #[error("cannot dial {address}: {why}")]
    Failed { address: SocketAddr, why: String },
    /// The peer answered and rejected this node.
    #[error("cannot dial {address}: {why}")]
    Rejected { address: SocketAddr, why: String },
    #[error("cannot dial {}: no answer within {} ms; check that the node runs and that UDP reaches it",
        list(addresses), waited.as_millis())]
    NoAnswer { addresses: Vec<SocketAddr>, waited: Duration },
}

impl DialError {
    fn of(address: SocketAddr, lost: &DisconnectReason) -> Self {
        let why = lost.to_string();
        if lost.is_rejection() {
            Self::Rejected { address, why }
        } else {
            Self::Failed { address, why }
        }
    }
}

impl From<DialError> for DisconnectReason {
    fn from(error: DialError) -> Self {
        Self::of_dial(error.to_string(), matches!(error, DialError::Rejected { .. }))
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Dials the addresses one after the other without waiting for failures, then starts over, until
/// one answers or the timeout expires. A rejection ends the dial at once when no other address is
/// left. An address that has begun to answer is not dialled again, because the peer may be busy.
pub(crate) async fn race(
    quic: &quinn::Endpoint,
    config: &quinn::ClientConfig,
    addresses: &[SocketAddr],
) -> Result<quinn::Connection, DialError> {
    let begun = Instant::now();
    let has_answered = AtomicBool::new(false);
    let mut attempts = FuturesUnordered::new();
    let mut started = 0;
    let mut next = begun;
    let mut retry = RETRY_INTERVAL;
    let mut failure = None;
    if addresses.is_empty() {
        return Err(DialError::NoAddress);
    }
    loop {
        tokio::select! {
            biased;
            Some(outcome) = attempts.next() => match outcome {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    if started < addresses.len() {
                        next = Instant::now();
                    } else if attempts.is_empty() {
                        return Err(error);
                    }
                    failure = Some(error);
                }
            },
            () = sleep_until(begun + HANDSHAKE_TIMEOUT) => {
                let addresses = addresses.to_vec();
                let timed_out = DialError::NoAnswer { addresses, waited: HANDSHAKE_TIMEOUT };
                return Err(failure.unwrap_or(timed_out));
            }
            () = sleep_until(next), if started < addresses.len() || !has_answered.load(Ordering::Relaxed) => {
                let address = addresses[started % addresses.len()];
                attempts.push(attempt(quic, config, address, &has_answered));
                started += 1;
                let pause = if started < addresses.len() {
                    ATTEMPT_DELAY
                } else {
                    retry *= 2;
                    retry / 2
                };
                next = Instant::now() + pause;
            }
        }
    }
}

async fn attempt(
    quic: &quinn::Endpoint,
    config: &quinn::ClientConfig,
    address: SocketAddr,
    has_answered: &AtomicBool,
) -> Result<quinn::Connection, DialError> {
    let mut connecting = quic
        .connect_with(config.clone(), address, SERVER_NAME)
        .map_err(|e| DialError::Failed { address, why: chain(&e) })?;
    if connecting.handshake_data().await.is_ok() {
        has_answered.store(true, Ordering::Relaxed);
    }
    connecting.await.map_err(|e| DialError::of(address, &DisconnectReason::of(&e)))
}
