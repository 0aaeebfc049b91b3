//! Serial numbers of certificates.

use crate::key::random;

/// 128 random bits, positive and not zero (RFC 5280 section 4.1.2.2 allows up to 20 octets).
pub(crate) fn random_serial() -> rcgen::SerialNumber {
    let mut bytes = random::<16>();
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    rcgen::SerialNumber::from_slice(bytes.as_slice())
}
