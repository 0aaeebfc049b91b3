//! Mutual proof that both ends of a session have the token, without sending it.
//!
//! Each side sends an HMAC-SHA256, under its direction's key, of the session's exporter, both
//! public keys and the token id. A relay in the middle has two sessions, so two exporters. A replay
//! is in another session. A reflected proof was made with the other direction's key. Swapped keys
//! give another message. The exporter must come from a full handshake, never from 0-RTT.

use muster_types::PublicKey;
use ring::hmac;

pub use crate::token::Side;
use crate::token::{TokenId, Verifier};

/// Label of the TLS exporter (RFC 5705, RFC 8446 section 7.5) in a [`Transcript`], with an empty
/// context and 32 bytes of output. `EXPERIMENTAL` is the prefix of unregistered labels (RFC 5705
/// section 4).
pub const EXPORTER_LABEL: &[u8] = b"EXPERIMENTAL-muster-hello-1";

/// Domain separation: first part of every message, so that no other use of the keys is a proof.
const PURPOSE: &[u8] = b"muster-hello/1 token proof";

/// Content that a proof binds: the session, both keys, the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// The session's keying material under [`EXPORTER_LABEL`].
    pub exporter: [u8; 32],
    pub dialer: PublicKey,
    pub listener: PublicKey,
    pub token: TokenId,
}

impl Transcript {
    /// Each part with its length before it (two bytes, big endian), so that the encoding is unique.
    fn encode(&self) -> Vec<u8> {
        let parts: [&[u8]; 5] = [
            PURPOSE,
            &self.exporter,
            self.dialer.as_bytes(),
            self.listener.as_bytes(),
            self.token.as_str().as_bytes(),
        ];
        let mut message = Vec::with_capacity(160);
        for part in parts {
            let length = u16::try_from(part.len()).expect("every part is below 64 KiB");
            message.extend_from_slice(&length.to_be_bytes());
            message.extend_from_slice(part);
        }
        message
    }
}

impl Verifier {
    /// Returns the proof that `side` sends.
    pub fn prove(&self, side: Side, transcript: &Transcript) -> [u8; 32] {
        let proof = hmac::sign(&self.hmac(side), &transcript.encode());
        proof.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }

    /// Returns whether `proof` is the proof of `side`, compared in constant time.
    pub fn check(&self, side: Side, transcript: &Transcript, proof: &[u8]) -> bool {
        hmac::verify(&self.hmac(side), &transcript.encode(), proof).is_ok()
    }

    fn hmac(&self, side: Side) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.key(side))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::token::Token;

    struct Session {
        verifier: Verifier,
        transcript: Transcript,
    }

    fn session() -> Session {
        let token = Token::generate();
        let transcript = Transcript {
            exporter: [7; 32],
            dialer: Identity::generate().public_key(),
            listener: Identity::generate().public_key(),
            token: token.id().clone(),
        };
        Session { verifier: token.verifier(), transcript }
    }

    #[test]
    fn both_sides_prove_to_each_other() {
        let Session { verifier, transcript } = session();
        for side in [Side::Dialer, Side::Listener] {
            let proof = verifier.prove(side, &transcript);
            assert!(verifier.check(side, &transcript, &proof));
        }
    }

    #[test]
    fn a_relayed_proof_fails_because_the_other_session_has_another_exporter() {
        let Session { verifier, transcript } = session();
        let proof = verifier.prove(Side::Dialer, &transcript);
        let other = Transcript { exporter: [8; 32], ..transcript };
        assert!(!verifier.check(Side::Dialer, &other, &proof));
    }

    #[test]
    fn a_reflected_proof_fails_because_each_direction_has_its_key() {
        let Session { verifier, transcript } = session();
        let proof = verifier.prove(Side::Dialer, &transcript);
        assert!(!verifier.check(Side::Listener, &transcript, &proof));
    }

    #[test]
    fn a_proof_with_swapped_or_foreign_keys_fails() {
        let Session { verifier, transcript } = session();
        let proof = verifier.prove(Side::Dialer, &transcript);
        let Transcript { dialer, listener, .. } = transcript;
        let stranger = Identity::generate().public_key();
        for (dialer, listener) in [(listener, dialer), (stranger, listener), (dialer, stranger)] {
            let other = Transcript { dialer, listener, ..transcript.clone() };
            assert!(!verifier.check(Side::Dialer, &other, &proof));
        }
    }

    #[test]
    fn a_proof_of_another_token_fails_also_under_a_borrowed_id() {
        let Session { verifier, transcript } = session();
        let other = Token::generate();
        let forged = other.verifier().prove(Side::Dialer, &transcript);
        assert!(!verifier.check(Side::Dialer, &transcript, &forged));
        let renamed = Transcript { token: other.id().clone(), ..transcript.clone() };
        let proof = verifier.prove(Side::Dialer, &renamed);
        assert!(!verifier.check(Side::Dialer, &transcript, &proof));
    }

    #[test]
    fn a_proof_is_exactly_32_bytes() {
        let Session { verifier, transcript } = session();
        let proof = verifier.prove(Side::Dialer, &transcript);
        assert!(!verifier.check(Side::Dialer, &transcript, &[]));
        assert!(!verifier.check(Side::Dialer, &transcript, &proof[..31]));
        assert!(!verifier.check(Side::Dialer, &transcript, &[&proof[..], &[0]].concat()));
    }

    #[test]
    fn no_two_transcripts_share_an_encoding() {
        let Session { transcript, .. } = session();
        let encoded = transcript.encode();
        assert_eq!(encoded.len(), 5 * 2 + PURPOSE.len() + 3 * 32 + 10);
        assert_eq!(&encoded[..2], &[0, 26]);
    }
}
