//! The bootstrap token and its verifier, which the cluster stores.
//!
//! A token is written `id.secret`: ten public characters, a dot, 32 characters that carry 160
//! random bits, and six characters of checksum over both. The checksum is Bech32m's (BIP 350), a
//! BCH code over the 32 symbols of the text. In up to 89 symbols it detects *every* change of up to
//! four characters, so every typo and every transposition. A truncated hash of the same length
//! would detect them only with high probability. Larger damage passes with probability 2^-30. It
//! protects against typing errors, not against attacks: that is the task of the proof.

mod checksum;
#[cfg(test)]
mod fuzz;
mod verifier;

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD_NOCASE;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::checksum::{ALPHABET, CHECKSUM_LEN, checksum, value};
pub use self::verifier::{Side, Verifier, VerifierError};
use crate::key::random;

/// Length of a token id, in characters.
const ID_LEN: usize = 10;
/// Length of the secret, in characters of five bits.
const SECRET_LEN: usize = 32;
/// Fewest characters with at least 128 bits.
const MIN_SECRET_LEN: usize = 26;
/// Fewest distinct characters of a secret. A random one has about 20, and fewer than this once in
/// 10^10.
const MIN_DISTINCT: usize = 10;

/// The public part of a token. May be logged; names the token in `musterctl token revoke`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(String);

/// Error of parsing a [`TokenId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a token id: {ID_LEN} lower-case letters a-z or digits 2-7")]
pub struct TokenIdError {
    found: String,
}

impl TokenId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for TokenId {
    type Err = TokenIdError;

    fn from_str(text: &str) -> Result<Self, TokenIdError> {
        if text.len() == ID_LEN && text.bytes().all(|byte| value(byte).is_some()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(TokenIdError { found: text.chars().take(2 * ID_LEN).collect() })
        }
    }
}

impl TryFrom<String> for TokenId {
    type Error = TokenIdError;

    fn try_from(text: String) -> Result<Self, TokenIdError> {
        text.parse()
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        id.0
    }
}

/// Error of parsing a [`Token`]. No variant contains a character of the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error(
        "a token is written `id.secret`, with one dot; make one with `musterctl init`, or for a running \
         cluster with `musterctl token create`"
    )]
    Format,
    #[error(
        "the token's secret has {found} characters, so less than 128 bits: it can be guessed from \
         one recorded handshake; use one made by `musterctl init` or `musterctl token create`"
    )]
    TooShort { found: usize },
    #[error(
        "the token's secret has {found} characters instead of {}: some were lost or added; copy \
         it again", SECRET_LEN + CHECKSUM_LEN
    )]
    Length { found: usize },
    #[error(
        "the part before the token's dot is not {ID_LEN} lower-case letters a-z or digits 2-7; copy it \
         again"
    )]
    Id,
    #[error(
        "character {position} of the token's secret is not a lower-case letter a-z or digit 2-7; \
         copy it again"
    )]
    Alphabet { position: usize },
    #[error("the checksum of token {id} does not match: it has a typo; copy it again")]
    Checksum { id: TokenId },
    #[error(
        "the secret of token {id} was made by hand (it repeats too few characters) and can be \
         guessed; use one made by `musterctl init` or `musterctl token create`"
    )]
    LowEntropy { id: TokenId },
}

/// A token with its secret; wiped when dropped, never printed.
#[derive(Clone)]
pub struct Token {
    id: TokenId,
    secret: Zeroizing<[u8; 20]>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, redacted)", self.id)
    }
}

impl Token {
    /// Generates a new token from the kernel's randomness.
    pub fn generate() -> Self {
        let id = random::<ID_LEN>().map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
        let id = TokenId(id.iter().collect());
        loop {
            let token = Self { id: id.clone(), secret: random() };
            if has_enough_distinct(token.expose_secret().as_bytes()) {
                return token;
            }
        }
    }

    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// The whole token as text, for the operator's file. The only access to the secret.
    pub fn expose(&self) -> Zeroizing<String> {
        let secret = self.expose_secret();
        let mut text =
            Zeroizing::new(String::with_capacity(ID_LEN + 1 + SECRET_LEN + CHECKSUM_LEN));
        text.push_str(self.id.as_str());
        text.push('.');
        text.push_str(&secret);
        for symbol in checksum(self.id.as_str().bytes().chain(secret.bytes())) {
            text.push(char::from(ALPHABET[usize::from(symbol)]));
        }
        text
    }

    /// The part that the cluster stores: enough to check and to answer a proof, not the secret.
    pub fn verifier(&self) -> Verifier {
        Verifier::derive(&self.secret, &self.id)
    }

    fn expose_secret(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(BASE32_NOPAD_NOCASE.encode(self.secret.as_slice()));
        text.make_ascii_lowercase();
        text
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (id, secret) = text.split_once('.').ok_or(TokenError::Format)?;
        let found = secret.chars().count();
        if secret.contains('.') {
            return Err(TokenError::Format);
        }
        if found < MIN_SECRET_LEN {
            return Err(TokenError::TooShort { found });
        }
        if found != SECRET_LEN + CHECKSUM_LEN {
            return Err(TokenError::Length { found });
        }
        // Not the id's own error, which quotes the text: the part before the dot may be a secret.
        let id: TokenId = id.parse().map_err(|_| TokenError::Id)?;
        let is_invalid = |c: char| u8::try_from(c).ok().and_then(value).is_none();
        if let Some(position) = secret.chars().position(is_invalid) {
            return Err(TokenError::Alphabet { position: position + 1 });
        }
        let (secret, check) = secret.as_bytes().split_at(SECRET_LEN);
        let expected = checksum(id.as_str().bytes().chain(secret.iter().copied()));
        if !check.iter().copied().map(value).eq(expected.map(Some)) {
            return Err(TokenError::Checksum { id });
        }
        if !has_enough_distinct(secret) {
            return Err(TokenError::LowEntropy { id });
        }
        let mut bytes = Zeroizing::new([0; 20]);
        BASE32_NOPAD_NOCASE
            .decode_mut(secret, bytes.as_mut_slice())
            .expect("32 characters of base32 are 20 bytes");
        Ok(Self { id, secret: bytes })
    }
}

fn has_enough_distinct(secret: &[u8]) -> bool {
    let seen = secret.iter().filter_map(|&byte| value(byte)).fold(0_u32, |seen, v| seen | 1 << v);
    seen.count_ones() as usize >= MIN_DISTINCT
}

#[cfg(test)]
mod tests;
