//! Format numbers of stored and sent data.
//!
//! A record's format is the least that a reader must know to use it. A field that an older reader
//! may ignore does not raise it; a new variant, or a field that changes the meaning of others, does,
//! and only for the records that have one. So a number above a reader's own never means damage.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The one field that JSON and YAML records of every format have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct FormatHeader {
    pub format: u32,
}

/// Data that this version cannot use, because a newer version wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "written by a newer Muster (format {found}, this version reads up to {supported}); start the \
     version that wrote it"
)]
pub struct NewerFormat {
    pub found: u32,
    pub supported: u32,
}

impl NewerFormat {
    /// Returns an error if the format that was found is above the newest supported one.
    pub fn check(found: impl Into<u32>, supported: impl Into<u32>) -> Result<(), Self> {
        let (found, supported) = (found.into(), supported.into());
        if found > supported { Err(Self { found, supported }) } else { Ok(()) }
    }
}

/// Field `format` of a record for people, as its first field: written as `NEWEST`, and refused above
/// it. Without a value in the record it is `NEWEST` too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Format<const NEWEST: u32>;

impl<const NEWEST: u32> Serialize for Format<NEWEST> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(NEWEST)
    }
}

impl<'de, const NEWEST: u32> Deserialize<'de> for Format<NEWEST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = u32::deserialize(deserializer)?;
        NewerFormat::check(found, NEWEST).map_err(serde::de::Error::custom)?;
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_higher_number_is_newer() {
        assert_eq!(NewerFormat::check(1u8, 2u8), Ok(()));
        assert_eq!(NewerFormat::check(2u8, 2u8), Ok(()));
        let error = NewerFormat::check(3u32, 2u32).unwrap_err();
        assert_eq!(error, NewerFormat { found: 3, supported: 2 });
        assert!(error.to_string().contains("newer Muster"));
        assert_eq!(serde_json::to_string(&Format::<2>).unwrap(), "2");
        assert_eq!(serde_json::from_str::<Format<2>>("1").unwrap(), Format);
        let error = serde_json::from_str::<Format<2>>("3").unwrap_err();
        assert!(error.to_string().contains("newer Muster"), "{error}");
    }
}
