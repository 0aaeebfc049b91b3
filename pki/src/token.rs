//! The bootstrap token and what a cluster keeps of it.
//!
//! A token is written `id.secret`: ten public characters, a dot, 32 characters that carry 160
//! random bits, and six characters of checksum over both. The checksum is Bech32m's (BIP 350), a
//! BCH code over the very 32 symbols that the text is made of: up to 89 symbols it finds *every*
//! change of up to four characters, so every single typo and every transposition, where a
//! truncated hash of the same length would find them only probably. Longer damage passes with
//! probability 2^-30. It guards against typing, not against attack: that is the proof's work.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD_NOCASE;
use ring::hkdf;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::key::random;
use crate::proof::Side;
use crate::storage::Secret;

/// Characters of a token id.
const ID: usize = 10;
/// Characters of the secret, five bits each.
const SECRET: usize = 32;
/// Characters of the checksum.
const CHECKSUM: usize = 6;
/// Fewest characters that carry 128 bits.
const STRONG: usize = 26;
/// A random secret has about 20 different characters, and fewer than this once in 10^10.
const VARIED: usize = 10;
/// RFC 4648 base32 in lower case.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The public half of a token's name: may be logged, names the token when it is revoked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(String);

/// Why a text is not a token id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a token id: {ID} lower-case letters a-z or digits 2-7")]
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
        if text.len() == ID && text.bytes().all(|byte| value(byte).is_some()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(TokenIdError { found: text.chars().take(2 * ID).collect() })
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

/// Why a text is not a token. No variant holds a character of the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("a token is written `id.secret`, with one dot; make one with `musterctl init`")]
    Shape,
    #[error(
        "the token's secret has {found} characters and so less than 128 bits: whoever records one \
         handshake could guess it; use one made by `musterctl init` or `musterctl token create`"
    )]
    TooShort { found: usize },
    #[error(
        "the token's secret has {found} characters instead of {}: some were lost or added; copy \
         it again", SECRET + CHECKSUM
    )]
    Length { found: usize },
    #[error("the token's id is wrong; copy the token again")]
    Id(#[from] TokenIdError),
    #[error(
        "character {position} of the token's secret is not a lower-case letter a-z or digit 2-7; \
         copy it again"
    )]
    Alphabet { position: usize },
    #[error("the checksum of token {id} does not match: it holds a typo; copy it again")]
    Checksum { id: TokenId },
    #[error(
        "the secret of token {id} was made by hand (it repeats too few characters) and can be \
         guessed; use one made by `musterctl init` or `musterctl token create`"
    )]
    HandMade { id: TokenId },
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
    /// A new token from the kernel's randomness.
    pub fn generate() -> Self {
        let id = random::<ID>().map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
        let id = TokenId(id.iter().collect());
        loop {
            let token = Self { id: id.clone(), secret: random() };
            if is_varied(token.expose_secret().as_bytes()) {
                return token;
            }
        }
    }

    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// The whole token as text: the only way to it, for the file that an operator keeps.
    pub fn expose(&self) -> Zeroizing<String> {
        let secret = self.expose_secret();
        let mut text = Zeroizing::new(String::with_capacity(ID + 1 + SECRET + CHECKSUM));
        text.push_str(self.id.as_str());
        text.push('.');
        text.push_str(&secret);
        for symbol in checksum(self.id.as_str().bytes().chain(secret.bytes())) {
            text.push(char::from(ALPHABET[usize::from(symbol)]));
        }
        text
    }

    /// What the cluster keeps: enough to check and to answer a proof, not the secret.
    pub fn verifier(&self) -> Verifier {
        let secret =
            hkdf::Salt::new(hkdf::HKDF_SHA256, b"muster token 1").extract(self.secret.as_slice());
        let derive = |label: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            secret
                .expand(&[label, self.id.as_str().as_bytes()], hkdf::HKDF_SHA256)
                .and_then(|output| output.fill(key.as_mut_slice()))
                .expect("32 bytes are one block of HKDF-SHA256");
            key
        };
        Verifier {
            dialer: derive(b"muster-hello/1 the dialer proves to the listener: "),
            listener: derive(b"muster-hello/1 the listener proves to the dialer: "),
        }
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
        let (id, secret) = text.split_once('.').ok_or(TokenError::Shape)?;
        let found = secret.chars().count();
        if secret.contains('.') {
            return Err(TokenError::Shape);
        }
        if found < STRONG {
            return Err(TokenError::TooShort { found });
        }
        if found != SECRET + CHECKSUM {
            return Err(TokenError::Length { found });
        }
        let id: TokenId = id.parse()?;
        let foreign = |c: char| u8::try_from(c).ok().and_then(value).is_none();
        if let Some(position) = secret.chars().position(foreign) {
            return Err(TokenError::Alphabet { position: position + 1 });
        }
        let (secret, check) = secret.as_bytes().split_at(SECRET);
        let expected = checksum(id.as_str().bytes().chain(secret.iter().copied()));
        if !check.iter().copied().map(value).eq(expected.map(Some)) {
            return Err(TokenError::Checksum { id });
        }
        if !is_varied(secret) {
            return Err(TokenError::HandMade { id });
        }
        let mut bytes = Zeroizing::new([0; 20]);
        BASE32_NOPAD_NOCASE
            .decode_mut(secret, bytes.as_mut_slice())
            .expect("32 characters of base32 are 20 bytes");
        Ok(Self { id, secret: bytes })
    }
}

/// Two keys derived from a token's secret, one per direction of the proof. They check and answer
/// proofs; the secret cannot be had from them. Stored in Raft, so they serialize, but only into
/// binary formats; wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Secret", into = "Secret")]
pub struct Verifier {
    dialer: Zeroizing<[u8; 32]>,
    listener: Zeroizing<[u8; 32]>,
}

/// A byte string of the wrong length for a [`Verifier`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a token verifier has 64 bytes, not {found}")]
pub struct VerifierError {
    found: usize,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(redacted)")
    }
}

impl Verifier {
    /// Both keys, 64 bytes.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(64));
        bytes.extend_from_slice(self.dialer.as_slice());
        bytes.extend_from_slice(self.listener.as_slice());
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, VerifierError> {
        let wrong = VerifierError { found: bytes.len() };
        let (dialer, listener) = bytes.split_first_chunk::<32>().ok_or(wrong.clone())?;
        let listener: [u8; 32] = listener.try_into().map_err(|_| wrong)?;
        Ok(Self { dialer: Zeroizing::new(*dialer), listener: Zeroizing::new(listener) })
    }

    pub(crate) fn key(&self, side: Side) -> &[u8; 32] {
        match side {
            Side::Dialer => &self.dialer,
            Side::Listener => &self.listener,
        }
    }
}

impl TryFrom<Secret> for Verifier {
    type Error = VerifierError;

    fn try_from(bytes: Secret) -> Result<Self, VerifierError> {
        Self::from_bytes(&bytes.0)
    }
}

impl From<Verifier> for Secret {
    fn from(verifier: Verifier) -> Self {
        Self(verifier.to_bytes())
    }
}

/// The five bits that a character stands for.
fn value(byte: u8) -> Option<u8> {
    match byte {
        b'a'..=b'z' => Some(byte - b'a'),
        b'2'..=b'7' => Some(byte - b'2' + 26),
        _ => None,
    }
}

fn is_varied(secret: &[u8]) -> bool {
    let seen = secret.iter().filter_map(|&byte| value(byte)).fold(0_u32, |seen, v| seen | 1 << v);
    seen.count_ones() as usize >= VARIED
}

/// The Bech32m checksum (BIP 350) of base32 characters, as six symbols.
fn checksum(characters: impl Iterator<Item = u8>) -> [u8; CHECKSUM] {
    let symbols = characters.filter_map(value).chain([0; CHECKSUM]);
    let remainder = symbols.fold(1, polymod) ^ 0x2bc8_30a3;
    std::array::from_fn(|i| {
        u8::try_from((remainder >> (5 * (CHECKSUM - 1 - i))) & 31).expect("five bits")
    })
}

/// One step of the division by the BCH code's generator over GF(32) (BIP 173).
fn polymod(remainder: u32, symbol: u8) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let top = remainder >> 25;
    let shifted = (remainder & 0x01ff_ffff) << 5 ^ u32::from(symbol);
    (0..5).filter(|i| top >> i & 1 == 1).fold(shifted, |sum, i| sum ^ GENERATOR[i])
}

#[cfg(test)]
mod tests;
