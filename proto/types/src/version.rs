//! Numbers that only increase: versions of the configuration and indices of the Raft log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A version of the cluster's configuration: 1 for the founding document, 0 for none or an unknown
/// one. Encoded as the bare number.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ConfigVersion(pub u64);

impl ConfigVersion {
    /// No version is in force, or the version is unknown.
    pub const NONE: Self = Self(0);

    /// The version that the founders agreed on.
    pub const FIRST: Self = Self(1);
}

impl fmt::Display for ConfigVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The index of an entry in the Raft log. Encoded as the bare number.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct LogIndex(pub u64);

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_indices_are_encoded_as_bare_numbers() {
        assert_eq!(serde_json::to_string(&ConfigVersion::FIRST).unwrap(), "1");
        assert_eq!(serde_json::from_str::<LogIndex>("42").unwrap(), LogIndex(42));
    }
}
