//! Addresses of nodes as text in messages.

use std::net::SocketAddr;

use super::limits::MAX_ADDRESSES;

/// The socket addresses among the first [`MAX_ADDRESSES`] texts. Anything else is left out: one
/// malformed address must not hide the others.
pub fn parse_addresses(texts: &[String]) -> Vec<SocketAddr> {
    texts.iter().take(MAX_ADDRESSES).filter_map(|text| text.parse().ok()).collect()
}

/// Addresses as they stand in a message.
pub fn address_strings(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}
