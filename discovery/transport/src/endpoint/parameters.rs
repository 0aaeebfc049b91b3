//! Bounds on the bytes of one QUIC connection, and its timers. A stranger gets `HELLO_*`; a peer that
//! is known to be a member gets `NODE_*` ([`apply_member_limits`]).
//!
//! Other bounds on strangers:
//! - bytes of one message: `MAX_HELLO_MESSAGE` in `muster_types::limits`;
//! - HTTP/2 (calls at a time, window, header list): `Limits::HELLO` in `rpc/http2.rs`;
//! - calls before the proof: `hello/session.rs`;
//! - handshakes, failed proofs and sessions, per source and in total: `limits` of this crate.

use std::sync::Arc;
use std::time::Duration;

use muster_pki::Zeroizing;
use muster_pki::identity::Identity;
use quinn::{EndpointConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use ring::{hkdf, hmac};

/// Bytes in flight from an unauthenticated peer, over all its streams.
const HELLO_WINDOW: u32 = 128 << 10;

/// Concurrent streams of an unauthenticated peer: one HTTP/2 connection, and one to replace it.
const HELLO_STREAMS: u32 = 2;

/// Timeout of a handshake, on either side. Generous, because a small machine may be starting a
/// whole cluster; the gate bounds memory, not this timeout.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time within which a session must prove the token; then it is closed.
pub const PROOF_TIMEOUT: Duration = Duration::from_secs(5);

/// Time without a call after which an authenticated hello session is closed.
pub const HELLO_IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// Timeout of a call on `muster-hello/1`, from first header to reply.
pub const HELLO_CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest payload of [`super::Endpoint::send_datagram`], in bytes. It fits, with its framing, a
/// QUIC packet of the smallest allowed size (1200 bytes, RFC 9000 section 14).
pub const MAX_DATAGRAM: usize = 1150;

/// Concurrent streams of a member: its two lanes, and two that replace them.
pub(crate) const NODE_STREAMS: u32 = 4;

/// Bytes in flight from a member, over all its streams.
const NODE_WINDOW: u32 = 4 << 20;

/// Returns the parameters shared by both ALPNs. Once the peer is known to be a member,
/// [`apply_member_limits`] raises the limits.
pub(crate) fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(HELLO_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(1 << 20))
        .receive_window(VarInt::from_u32(HELLO_WINDOW))
        .send_window(u64::from(HELLO_WINDOW))
        // An idle session costs two small packets every ten seconds and survives the loss of two.
        // Dead-peer detection notices a silent session within seconds while it is in use.
        .keep_alive_interval(Some(Duration::from_secs(10)))
        .max_idle_timeout(Some(VarInt::from_u32(35_000).into()))
        // Only until the first measurement: a lost first packet is retransmitted after 300 ms.
        // Machines of one cluster are close to each other. On a longer path, or with a busy peer,
        // the retransmission is useless and cheap.
        .initial_rtt(Duration::from_millis(100))
        .datagram_receive_buffer_size(Some(32 << 10))
        .datagram_send_buffer_size(64 << 10);
    Arc::new(transport)
}

/// Raises the limits of a connection whose peer is a member.
pub(crate) fn apply_member_limits(connection: &quinn::Connection) {
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(NODE_STREAMS));
    connection.set_receive_window(VarInt::from_u32(NODE_WINDOW));
    connection.set_send_window(u64::from(NODE_WINDOW));
}

/// Endpoint keys derived from the identity. A restarted node can thus notify peers at once that
/// their sessions are gone (stateless reset, RFC 9000 section 10.3).
struct EndpointKeys {
    reset: hmac::Key,
    cids: u64,
}

fn endpoint_keys(identity: &Identity) -> EndpointKeys {
    // Ed25519 signatures are deterministic and this one is never sent, so it is as secret as the
    // key.
    let secret = Zeroizing::new(identity.sign(b"muster quic endpoint keys 1"));
    let keys = hkdf::Salt::new(hkdf::HKDF_SHA256, b"muster quic endpoint").extract(&*secret);
    let expand = |label: &'static [u8]| {
        let mut key = Zeroizing::new([0; 32]);
        keys.expand(&[label], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut *key))
            .expect("32 bytes are one block of SHA-256");
        key
    };
    let reset = hmac::Key::new(hmac::HMAC_SHA256, &*expand(b"stateless reset"));
    let cids = expand(b"connection ids");
    let cids = cids.first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight));
    EndpointKeys { reset, cids }
}

pub(crate) fn endpoint_config(identity: &Identity) -> EndpointConfig {
    let EndpointKeys { reset, cids } = endpoint_keys(identity);
    let mut config = EndpointConfig::new(Arc::new(reset));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(cids)));
    config
}

#[cfg(test)]
mod tests {
    use quinn::crypto::HmacKey as _;

    use super::*;

    #[test]
    fn a_restarted_node_keeps_its_endpoint_keys() {
        let (one, other) = (Identity::generate(), Identity::generate());
        let token = |identity: &Identity| {
            let mut token = [0; 32];
            endpoint_keys(identity).reset.sign(b"cid", &mut token);
            token
        };
        assert_eq!(token(&one), token(&one.clone()));
        assert_ne!(token(&one), token(&other));
        assert_eq!(endpoint_keys(&one).cids, endpoint_keys(&one).cids);
        assert_ne!(endpoint_keys(&one).cids, endpoint_keys(&other).cids);
    }
}
