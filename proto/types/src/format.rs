//! Format numbers of stored and sent data.
//!
//! A record's format is the least that a reader must know to use it. A field that an older reader
//! may ignore does not raise it; a new variant, or a field that changes the meaning of others, does,
//! and only for the records that have one. So a number above a reader's own never means damage.

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
}
