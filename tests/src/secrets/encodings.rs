//! Encodings of a secret, and the search for them.

use std::collections::{BTreeMap, BTreeSet};

use aho_corasick::{AhoCorasick, MatchKind};
use anyhow::{Context as _, Result, ensure};
use muster_pki::token::Token;

/// Length in bytes of the parts of a secret to search for: from its beginning, its middle and its
/// end, so that a part of it is found too.
const PART: usize = 12;

/// Secret of one run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret {
    /// Description; never the value.
    pub name: String,
    bytes: Vec<u8>,
    /// The secret as text.
    texts: Vec<String>,
}

impl Secret {
    /// Makes a secret of these bytes.
    pub fn new(name: impl Into<String>, bytes: &[u8]) -> Self {
        Self { name: name.into(), bytes: bytes.to_vec(), texts: Vec::new() }
    }

    /// Returns the secrets of a token: its secret part, as text and as bytes, and the verifier that
    /// the cluster stores.
    pub fn token(whose: &str, text: &str) -> Result<[Self; 2]> {
        let token: Token = text.trim().parse().context("a token")?;
        let (id, secret) = text.trim().split_once('.').context("a token")?;
        let half = secret.get(..16).context("a secret")?.to_owned();
        let bytes = base32(secret.get(..32).context("32 characters")?)?;
        let secret = Self {
            texts: vec![half],
            ..Self::new(format!("the secret of {whose} token {id}"), &bytes)
        };
        Ok([
            secret,
            Self::new(format!("the verifier of {whose} token {id}"), &token.verifier().to_bytes()),
        ])
    }

    /// Makes a secret of the private key in a PEM block: an Ed25519 seed (RFC 8410) or a P-256
    /// scalar (RFC 5915 in PKCS#8), without a public half.
    pub fn key(name: impl Into<String>, pem: &str) -> Result<Self> {
        let name = name.into();
        let lines = pem.lines().skip_while(|line| *line != "-----BEGIN PRIVATE KEY-----").skip(1);
        let body: String = lines.take_while(|line| !line.starts_with("-----")).collect();
        let der = base64(&body).with_context(|| name.clone())?;
        Self::key_der(name.clone(), &der).with_context(|| format!("{name}: {} bytes", der.len()))
    }

    /// Like [`Self::key`], for PKCS#8 bytes.
    pub fn key_der(name: impl Into<String>, der: &[u8]) -> Result<Self> {
        let begin = if der.len() == 48 {
            16
        } else {
            let octets = der.windows(5).position(|w| w == [2, 1, 1, 4, 0x20]);
            octets.context("neither an Ed25519 nor a P-256 key in PKCS#8")? + 5
        };
        let key = der.get(begin..begin + 32).context("32 bytes of key")?;
        Ok(Self::new(name, key))
    }

    /// Returns every encoding, by name.
    fn encodings(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut encodings = Vec::new();
        for text in &self.texts {
            encodings.push(("as text", text.clone().into_bytes()));
        }
        let bytes = &self.bytes;
        let last = bytes.len().saturating_sub(PART);
        for start in BTreeSet::from([0, last / 2, last]) {
            let part = &bytes[start..(start + PART).min(bytes.len())];
            let hex = hex(part);
            let numbers: Vec<_> = part.iter().map(ToString::to_string).collect();
            encodings.push(("raw", part.to_vec()));
            encodings.push(("in upper-case hex", hex.to_ascii_uppercase().into_bytes()));
            encodings.push(("in hex", hex.into_bytes()));
            encodings.push(("as a list of numbers", numbers.join(", ").into_bytes()));
            encodings.push(("as a list of numbers", numbers.join(",").into_bytes()));
            for alphabet in [STANDARD, URL_SAFE] {
                // Depending on the bytes before it, it is encoded in one of three alignments.
                for shift in 0..3 {
                    encodings.push(("in base64", base64_of_part(part, shift, alphabet)));
                }
            }
        }
        // base32 is searched at the beginning only: Muster never writes it in the middle.
        encodings.push(("in base32", base32_of(&bytes[..(bytes.len() / 5 * 5).min(20)])));
        encodings
    }
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Returns the base64 characters that depend on `part` alone when `shift` bytes precede it.
fn base64_of_part(part: &[u8], shift: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    let bits: Vec<u8> = [&vec![0; shift], part].concat();
    let mut text = Vec::new();
    for group in bits.chunks_exact(3) {
        let word = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        text.extend((0..4).map(|n| alphabet[(word >> (18 - 6 * n) & 63) as usize]));
    }
    // The first characters hold bits of the preceding bytes.
    text.drain(..(shift * 8).div_ceil(6));
    text
}

/// Returns lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn base32_of(bytes: &[u8]) -> Vec<u8> {
    let bit = |at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
    let symbol = |n: usize| (0..5).fold(0, |value, b| value << 1 | bit(5 * n + b));
    (0..bytes.len() * 8 / 5).map(|n| BASE32[usize::from(symbol(n))]).collect()
}

fn decode(text: &str, alphabet: &[u8], width: u32) -> Result<Vec<u8>> {
    let (mut bytes, mut buffer, mut bits) = (Vec::new(), 0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let value = alphabet.iter().position(|known| *known == byte);
        buffer = buffer << width | u32::try_from(value.context("a foreign character")?)?;
        bits += width;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(buffer >> bits & 0xff)?);
        }
    }
    Ok(bytes)
}

fn base32(text: &str) -> Result<Vec<u8>> {
    decode(text, BASE32, 5)
}

fn base64(text: &str) -> Result<Vec<u8>> {
    decode(text, STANDARD, 6)
}

/// A secret in one of its encodings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Match {
    pub name: String,
    pub encoding: &'static str,
}

/// Search for all secrets of a run at once.
#[derive(Debug)]
pub struct Search {
    patterns_by_index: Vec<Match>,
    automaton: AhoCorasick,
}

impl Search {
    /// Prepares a search for these secrets in all encodings.
    pub fn new(secrets: &[Secret]) -> Result<Self> {
        let (mut patterns_by_index, mut patterns) = (Vec::new(), Vec::new());
        for secret in secrets {
            ensure!(secret.bytes.len() >= PART, "{} is too short to be looked for", secret.name);
            for (encoding, pattern) in secret.encodings() {
                patterns_by_index.push(Match { name: secret.name.clone(), encoding });
                patterns.push(pattern);
            }
        }
        let automaton = AhoCorasick::builder().match_kind(MatchKind::Standard).build(&patterns)?;
        Ok(Self { patterns_by_index, automaton })
    }

    /// Returns every secret in this text.
    pub fn scan(&self, text: &[u8]) -> BTreeSet<Match> {
        let hits = self.automaton.find_overlapping_iter(text);
        hits.map(|hit| self.patterns_by_index[hit.pattern().as_usize()].clone()).collect()
    }

    /// Returns the encodings of each secret.
    pub fn encodings(&self) -> BTreeMap<&str, BTreeSet<&'static str>> {
        let mut encodings: BTreeMap<&str, BTreeSet<&'static str>> = BTreeMap::new();
        for Match { name, encoding } in &self.patterns_by_index {
            encodings.entry(name).or_default().insert(encoding);
        }
        encodings
    }
}

#[cfg(test)]
mod tests {
    use muster_pki::authority::ServiceAccountKey;
    use muster_pki::identity::Identity;

    use super::*;

    /// Returns texts that contain the bytes. The search must find the secret in each.
    fn encoded(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        let hex = hex(bytes);
        let mut all = vec![
            ("raw".to_owned(), bytes.to_vec()),
            ("debug".to_owned(), format!("{bytes:?}").into_bytes()),
            ("upper hex".to_owned(), hex.to_uppercase().into_bytes()),
            ("hex".to_owned(), hex.into_bytes()),
            ("json".to_owned(), serde_json::to_vec(bytes).unwrap()),
        ];
        for before in 0..4 {
            for alphabet in [STANDARD, URL_SAFE] {
                let whole = [&vec![0xa5; before], bytes, &[0, 1, 2]].concat();
                all.push((format!("base64 +{before}"), base64_of_part(&whole, 0, alphabet)));
            }
        }
        all
    }

    fn assert_found(secret: &Secret, encodings: Vec<(String, Vec<u8>)>) {
        let search = Search::new(std::slice::from_ref(secret)).unwrap();
        for (encoding, text) in encodings {
            let line = [b"2026-01-01 INFO something: ", &text[..], b" and more"].concat();
            let found = search.scan(&line);
            assert!(found.iter().any(|f| f.name == secret.name), "{} {encoding}", secret.name);
        }
        assert!(search.scan(b"a line that shows nothing").is_empty());
    }

    #[test]
    fn every_form_of_a_secret_is_found_and_half_of_it_too() {
        let token = Token::generate();
        let [secret, verifier] = Secret::token("a", &token.expose()).unwrap();
        assert_found(&secret, vec![("text".to_owned(), token.expose().as_bytes().to_vec())]);
        let secrets = [
            secret,
            verifier,
            Secret::key("a node's key", &Identity::generate().to_pem()).unwrap(),
            Secret::key("a P-256 key", &ServiceAccountKey::create().private_pem()).unwrap(),
        ];
        for secret in secrets {
            assert_found(&secret, encoded(&secret.bytes));
            assert_found(&secret, encoded(&secret.bytes[..secret.bytes.len() / 2 + 4]));
            assert_found(&secret, encoded(&secret.bytes[secret.bytes.len() / 2 - 4..]));
        }
    }

    #[test]
    fn a_key_file_shows_its_key_and_its_public_half_does_not() {
        let key = ServiceAccountKey::create();
        let search = Search::new(&[Secret::key("k", &key.private_pem()).unwrap()]).unwrap();
        // A line's end cuts some of the encodings, never all.
        assert!(!search.scan(key.private_pem().as_bytes()).is_empty());
        assert!(search.scan(key.public_pem().as_bytes()).is_empty());
    }
}
