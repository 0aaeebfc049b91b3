//! Placeholders of the pki types until that crate has them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The public half of a token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TokenId(String);

impl FromStr for TokenId {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

macro_rules! opaque {
    ($($name:ident),+) => {$(
        /// Secret bytes.
        #[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name(Vec<u8>);

        impl $name {
            pub fn from_bytes(bytes: &[u8]) -> Self {
                Self(bytes.to_vec())
            }

            pub fn certificate(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    )+};
}

opaque!(Verifier, Authority, ServiceAccountKey);
