//! Strips the reason text from TLS errors. QUIC would send it to the peer. rustls' text reveals
//! whether a key is a member's, which authority was expected and the local time. Only the alert is
//! sent; the text goes to this node's log.

use std::any::Any;
use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::crypto::{ExportKeyingMaterialError, ServerConfig, Session, UnsupportedVersion};
use quinn_proto::crypto::{HeaderKey, KeyPair, Keys, PacketKey};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionId, Side, TransportError};

/// Server configuration whose sessions redact error reasons.
pub(crate) struct RedactReasons(Arc<QuicServerConfig>);

impl RedactReasons {
    pub(crate) fn new(config: QuicServerConfig) -> Self {
        Self(Arc::new(config))
    }
}

impl ServerConfig for RedactReasons {
    fn initial_keys(&self, version: u32, to: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.0.initial_keys(version, to)
    }

    fn retry_tag(&self, version: u32, to: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.0.retry_tag(version, to, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, own: &TransportParameters) -> Box<dyn Session> {
        Box::new(RedactedSession(Arc::clone(&self.0).start_session(version, own)))
    }
}

/// TLS session that redacts error reasons.
struct RedactedSession(Box<dyn Session>);

fn redact(mut error: TransportError) -> TransportError {
    let why = std::mem::take(&mut error.reason);
    tracing::debug!(reason = why, "handshake rejected");
    error
}

impl Session for RedactedSession {
    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        self.0.read_handshake(bytes).map_err(redact)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.0.transport_parameters().map_err(redact)
    }

    fn initial_keys(&self, to: &ConnectionId, side: Side) -> Keys {
        self.0.initial_keys(to, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.0.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.0.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.0.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.0.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    fn write_handshake(&mut self, bytes: &mut Vec<u8>) -> Option<Keys> {
        self.0.write_handshake(bytes)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.0.next_1rtt_keys()
    }

    fn is_valid_retry(&self, to: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.0.is_valid_retry(to, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.0.export_keying_material(output, label, context)
    }
}
