//! The alphabet of tokens and their Bech32m checksum (BIP 350).

/// Length of the checksum, in characters.
pub(super) const CHECKSUM_LEN: usize = 6;

/// RFC 4648 base32 in lower case.
pub(super) const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Value of a character, five bits.
pub(super) fn value(byte: u8) -> Option<u8> {
    match byte {
        b'a'..=b'z' => Some(byte - b'a'),
        b'2'..=b'7' => Some(byte - b'2' + 26),
        _ => None,
    }
}

/// Bech32m checksum (BIP 350) of base32 characters, as six symbols.
pub(super) fn checksum(characters: impl Iterator<Item = u8>) -> [u8; CHECKSUM_LEN] {
    let symbols = characters.filter_map(value).chain([0; CHECKSUM_LEN]);
    let remainder = symbols.fold(1, polymod) ^ 0x2bc8_30a3;
    std::array::from_fn(|i| {
        u8::try_from((remainder >> (5 * (CHECKSUM_LEN - 1 - i))) & 31).expect("five bits")
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
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_bech32m() {
        // BIP 350's test vector "a1lqfn3a": the human-readable part "a" expands to 3 0 1, no data,
        // and the checksum l q f n 3 a is 31 0 9 19 17 29 in that alphabet.
        let remainder = [3, 0, 1, 31, 0, 9, 19, 17, 29].into_iter().fold(1, polymod);
        assert_eq!(remainder, 0x2bc8_30a3);
    }
}
