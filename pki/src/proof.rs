//! The mutual proof that both ends of a session hold the token, without sending it.
//!
//! Each side sends HMAC-SHA256 under its direction's key over the session's exporter, both public
//! keys and the token id. A relay in the middle has two sessions and so two exporters; a replay has
//! another session; a reflected proof was made under the other direction's key; swapped keys make
//! another message. The exporter must come from a full handshake, never from 0-RTT.

use muster_types::PublicKey;
use ring::hmac;

use crate::token::{TokenId, Verifier};

/// Label of the TLS exporter (RFC 5705, RFC 8446 section 7.5) that a [`Transcript`] holds, asked
/// for with an empty context and 32 bytes of output. `EXPERIMENTAL` is the prefix that RFC 5705
/// section 4 leaves to labels without registration.
pub const EXPORTER_LABEL: &[u8] = b"EXPERIMENTAL-muster-hello-1";

/// Opens every proven message, so that no other use of the keys can be taken for a proof.
const PURPOSE: &[u8] = b"muster-hello/1 token proof";

/// Which end of the session proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The end that opened the session. It proves first.
    Dialer,
    /// The end that accepted it. It proves only to a dialer whose proof was right.
    Listener,
}

/// What a proof binds: this session, these two keys, this token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// The session's keying material under [`EXPORTER_LABEL`].
    pub exporter: [u8; 32],
    pub dialer: PublicKey,
    pub listener: PublicKey,
    pub token: TokenId,
}

impl Transcript {
    /// Each part behind its length (two bytes, big endian), so that no two transcripts have one
    /// encoding.
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
    /// The proof that `side` sends.
    pub fn prove(&self, side: Side, transcript: &Transcript) -> [u8; 32] {
        let proof = hmac::sign(&self.hmac(side), &transcript.encode());
        proof.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }

    /// Whether `proof` is what `side` must have sent, compared in constant time.
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
