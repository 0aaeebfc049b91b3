//! Identifiers of 32 bytes: public keys, node ids and cluster ids.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, BASE64};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Error of parsing an identifier from text or bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("a {what} is {expected}, not {found:?}")]
    Text { what: &'static str, expected: &'static str, found: String },
    #[error("a {what} has 32 bytes, not {found}")]
    Length { what: &'static str, found: usize },
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name([u8; 32]);

        impl $name {
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The bytes, as messages carry them.
            pub fn to_vec(self) -> Vec<u8> {
                self.0.to_vec()
            }

            /// The first ten characters: enough to distinguish nodes in a log or a table.
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(10);
                text
            }
        }

        /// 52 characters of lower-case base32 (RFC 4648 without padding): fits a DNS label.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let wrong = || IdError::Text {
                    what: $what,
                    expected: "52 characters of lower-case base32",
                    found: text.chars().take(64).collect(),
                };
                if text.len() != 52 || text.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(wrong());
                }
                let bytes = BASE32_NOPAD
                    .decode(text.to_ascii_uppercase().as_bytes())
                    .map_err(|_| wrong())?;
                Self::try_from(bytes.as_slice())
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                let bytes = bytes
                    .try_into()
                    .map_err(|_| IdError::Length { what: $what, found: bytes.len() })?;
                Ok(Self(bytes))
            }
        }

        binary_serde!($name);
    };
}

/// Text where a person may read it (JSON, YAML), 32 raw bytes where only machines do.
macro_rules! binary_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; 32]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

id! {
    /// A node: SHA-256 of its Ed25519 public key. Created at the first start and never reused; a
    /// wiped machine is a new node. `muster_pki::identity` computes it.
    NodeId, "node id"
}

id! {
    /// A cluster: SHA-256 over the proposal its founders agreed on (`muster_formation::birth`).
    ClusterId, "cluster id"
}

/// An Ed25519 public key (RFC 8032), written `ed25519:` and 44 characters of base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    const PREFIX: &str = "ed25519:";

    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The bytes, as messages carry them.
    pub fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, BASE64.encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Text {
            what: "public key",
            expected: "`ed25519:` and 44 characters of base64",
            found: text.chars().take(64).collect(),
        };
        let encoded = text.strip_prefix(Self::PREFIX).ok_or_else(wrong)?;
        let bytes = BASE64.decode(encoded.as_bytes()).map_err(|_| wrong())?;
        // The decoder also accepts padding in the middle, as if two texts were joined.
        if BASE64.encode(&bytes) != encoded {
            return Err(wrong());
        }
        Self::try_from(bytes.as_slice())
    }
}

impl TryFrom<&[u8]> for PublicKey {
    type Error = IdError;

    fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
        let bytes = bytes
            .try_into()
            .map_err(|_| IdError::Length { what: "public key", found: bytes.len() })?;
        Ok(Self(bytes))
    }
}

binary_serde!(PublicKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_what_it_prints() {
        let id = NodeId::from_bytes([0xa5; 32]);
        assert_eq!(id.to_string().len(), 52);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(
            serde_json::from_str::<NodeId>(&serde_json::to_string(&id).unwrap()).unwrap(),
            id
        );
    }

    #[test]
    fn an_id_has_one_spelling() {
        let text = NodeId::from_bytes([0xa5; 32]).to_string();
        for wrong in [
            text.to_uppercase(),
            format!("{text}a"),
            text[..51].to_owned(),
            format!("{}!", &text[..51]),
        ] {
            assert!(wrong.parse::<NodeId>().is_err(), "{wrong}");
        }
        // The last character has 4 padding bits that must be zero.
        assert!(format!("{}b", &text[..51]).parse::<NodeId>().is_err());
    }

    #[test]
    fn a_public_key_reads_back_what_it_prints() {
        let key = PublicKey::from_bytes([7; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert!("ed25519:AAAA".parse::<PublicKey>().is_err());
        assert!("rsa:AAAA".parse::<PublicKey>().is_err());
    }

    #[test]
    fn a_public_key_has_one_spelling() {
        // Found by fuzzing: 32 bytes, with padding in the middle.
        let inside = "ed25519:AQbbbbbbbbbEBAQ=BJQEAQEBBAQEBAQbbbbbbed25519";
        assert!(inside.parse::<PublicKey>().is_err());
        let text = PublicKey::from_bytes([7; 32]).to_string();
        assert!(text.replace("Bwc=", "Bwd=").parse::<PublicKey>().is_err(), "padding bits set");
    }
}
