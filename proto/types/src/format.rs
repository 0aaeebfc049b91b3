//! Format numbers of stored and sent data.
//!
//! A record's format is the least that a reader must know to use it. A field that an older reader
//! may ignore does not raise it. A new variant, a field that changes the meaning of others, and a
//! higher limit do, and only for the records that need them. So a number above a reader's own never
//! means damage.

use serde::Deserialize;

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

/// The one field that JSON and YAML records of every format have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct FormatHeader {
    #[serde(default = "first")]
    pub format: u32,
}

/// Format of a record that a person wrote without a number.
pub const fn first() -> u32 {
    1
}

/// Reasons why text is not a record of this version. `E`: the parser's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordError<E> {
    Newer(NewerFormat),
    Malformed(E),
}

/// Parses a record of JSON or YAML: first its header, wherever it stands in the text, and the rest
/// only if this version supports its format. `header` and `record` parse the same text.
///
/// # Errors
/// When one of them fails, or when the format is above `supported`.
pub fn parse<T, E>(
    supported: u32,
    header: impl FnOnce() -> Result<FormatHeader, E>,
    record: impl FnOnce() -> Result<T, E>,
) -> Result<T, RecordError<E>> {
    let FormatHeader { format } = header().map_err(RecordError::Malformed)?;
    NewerFormat::check(format, supported).map_err(RecordError::Newer)?;
    record().map_err(RecordError::Malformed)
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
    }

    /// The rest of a newer record may be anything, and its number may come last.
    #[test]
    fn a_newer_record_is_not_malformed() {
        #[derive(Debug, Deserialize)]
        struct Record {
            name: String,
        }
        let read = |text: &str| {
            let parsed =
                parse(2, || serde_json::from_str(text), || serde_json::from_str::<Record>(text));
            parsed.map(|record| record.name)
        };
        assert_eq!(read(r#"{"name":"x","format":2,"more":[]}"#).unwrap(), "x");
        assert_eq!(read(r#"{"name":"x"}"#).unwrap(), "x");
        let newer = read(r#"{"name":{"now":"an object"},"format":3}"#).unwrap_err();
        assert!(matches!(newer, RecordError::Newer(NewerFormat { found: 3, supported: 2 })));
        assert!(matches!(read(r#"{"name":7}"#).unwrap_err(), RecordError::Malformed(_)));
    }
}
