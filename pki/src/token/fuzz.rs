//! Fuzz targets of tokens and their ids (see `muster_fuzz`).

use muster_fuzz::{Verdict, refused, target};

use super::{Token, TokenId, Verifier};

/// Token of 32 distinct characters with a valid checksum.
const TOKEN: &str = "abcdefghij.abcdefghijklmnopqrstuvwxyz234567d7zwmh";

#[test]
fn token() {
    target("token").longest(128).seed(TOKEN).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return refused("not text") };
        match text.parse::<Token>() {
            Ok(token) => {
                assert_eq!(*token.expose(), text, "two spellings of one value");
                assert_eq!(
                    Verifier::from_bytes(&token.verifier().to_bytes()),
                    Ok(token.verifier())
                );
                assert_eq!(token.id().as_str().parse(), Ok(token.id().clone()));
                Verdict::Accepted
            }
            Err(error) => {
                let shown = format!("{error} {error:?}");
                let secret = text.split_once('.').map_or(text, |(_, secret)| secret);
                // A short part of a secret may occur in the message by chance; twelve characters do
                // not.
                let parts =
                    secret.as_bytes().windows(12).filter_map(|w| std::str::from_utf8(w).ok());
                let id = text.split('.').next().unwrap_or_default();
                for part in parts.filter(|part| !id.contains(part)) {
                    assert!(!shown.contains(part), "{shown}");
                }
                refused(error)
            }
        }
    });
}

#[test]
fn token_id() {
    target("token_id").longest(64).seed("abcdefgh27").run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return refused("not text") };
        match text.parse::<TokenId>() {
            Ok(id) => {
                assert_eq!((id.as_str(), text.len()), (text, 10));
                Verdict::Accepted
            }
            Err(error) => refused(error),
        }
    });
}
