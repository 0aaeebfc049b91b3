//! The write that is measured: a request for a new token, of a fixed size.

use muster_messages::operator::CreateTokenRequest;
use muster_pki::token::Token;
use prost::Message as _;

/// Size of a write in bytes, for Muster and for its peers.
pub const WRITE_BYTES: usize = 256;

/// Returns a request of [`WRITE_BYTES`] for a new token, padded by the token's description. The
/// token expires at once, so that any number of them fits the bounds of the state.
pub fn write_request() -> CreateTokenRequest {
    let token = Token::generate();
    let mut request = CreateTokenRequest {
        id: token.id().to_string(),
        verifier: token.verifier().to_bytes().to_vec(),
        roles: vec![muster_messages::hello::NodeRole::Worker.into()],
        ttl_ms: 1,
        ..CreateTokenRequest::default()
    };
    // The description costs a tag and a length, which has two bytes above 127.
    let left = WRITE_BYTES - request.encoded_len();
    request.description = "x".repeat(left - if left > 129 { 3 } else { 2 });
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_has_256_bytes() {
        assert_eq!(write_request().encoded_len(), WRITE_BYTES);
    }
}
