//! Numbers as people write them in `node.yaml` and in arguments.

use std::str::FromStr;

/// Parses a number of decimal digits only. `str::parse` accepts a leading plus sign too, which would
/// give one value two spellings.
pub fn parse_digits<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_are_a_number() {
        assert_eq!(parse_digits("0"), Some(0_u8));
        assert_eq!(parse_digits("65535"), Some(u16::MAX));
        for wrong in ["", "+1", "-1", " 1", "1 ", "1_000", "0x1", "1.0", "256", "\u{661}"] {
            assert_eq!(parse_digits::<u8>(wrong), None, "{wrong:?}");
        }
    }
}
