//! Parses endpoints and resolves them to addresses.

use std::net::{IpAddr, SocketAddr};

use muster_pki::token::{Token, TokenError};
use muster_types::DEFAULT_PORT;
use muster_types::number::parse_digits;

/// Longest endpoint: a DNS name with a port.
const MAX_LEN: usize = 260;

/// A parsed endpoint.
enum ParsedEndpoint<'a> {
    Address(SocketAddr),
    Name(&'a str, u16),
}

/// Parses `ADDRESS`, `ADDRESS:PORT`, `NAME` or `NAME:PORT`. IPv6 with a port is in brackets.
fn parse_parts(text: &str) -> Option<ParsedEndpoint<'_>> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(ParsedEndpoint::Address(SocketAddr::new(address, DEFAULT_PORT)));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0).then_some(ParsedEndpoint::Address(address));
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, parse_digits(port).filter(|port| *port != 0)?),
        None => (text, DEFAULT_PORT),
    };
    is_name(name).then_some(ParsedEndpoint::Name(name, port))
}

/// Returns true for a valid host name. A name that ends in a number is a mistyped address. A token
/// looks like a name too, but its secret must not be sent to DNS.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let mut labels = text.strip_suffix('.').unwrap_or(text).split('.');
    let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    labels.clone().all(is_label)
        && labels.next_back().is_some_and(|last| !is_number(last))
        && !is_token(text)
}

/// Returns true for a token, even a mistyped one.
fn is_token(text: &str) -> bool {
    use TokenError::{Checksum, LowEntropy};
    matches!(text.parse::<Token>(), Ok(_) | Err(Checksum { .. } | LowEntropy { .. }))
}

/// Resolves an endpoint to its addresses.
pub(super) async fn resolve(endpoint: &str) -> Result<Vec<SocketAddr>, String> {
    let (name, port) = match parse_parts(endpoint) {
        Some(ParsedEndpoint::Address(address)) => return Ok(vec![address]),
        Some(ParsedEndpoint::Name(name, port)) => (name, port),
        None => return Err(invalid(endpoint)),
    };
    let found = tokio::net::lookup_host((name, port)).await;
    let addresses: Vec<SocketAddr> =
        found.map_err(|error| format!("look up {name}: {error}"))?.take(8).collect();
    if addresses.is_empty() { Err(format!("{name} has no address")) } else { Ok(addresses) }
}

/// Validates an endpoint without a DNS lookup.
pub(crate) fn parse(text: &str) -> Result<String, String> {
    if text.len() <= MAX_LEN && parse_parts(text).is_some() {
        Ok(text.to_owned())
    } else {
        Err(invalid(text))
    }
}

fn invalid(text: &str) -> String {
    format!(
        "{text:?} is not ADDRESS, ADDRESS:PORT, NAME or NAME:PORT, such as 10.0.0.11, \
         cp-1.example:50001 or [fd00::11]:50001"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_need_no_port_and_no_lookup() {
        for (text, address) in [
            ("127.0.0.1", "127.0.0.1:50000"),
            ("127.0.0.1:7", "127.0.0.1:7"),
            ("::1", "[::1]:50000"),
            ("[::1]", "[::1]:50000"),
            ("[::1]:7", "[::1]:7"),
        ] {
            assert_eq!(resolve(text).await.unwrap(), [address.parse().unwrap()], "{text}");
        }
    }

    #[test]
    fn an_invalid_endpoint_is_rejected_before_any_lookup() {
        for good in ["10.0.0.11", "cp-1", "cp-1.example.:7", "a_b:65535", "::1", "[fd00::11]:7"] {
            assert_eq!(parse(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "a b",
            "x:y",
            "10.0.0.1:",
            "10.0.0.1:0",
            "10.0.0.1:65536",
            ":7",
            "[::1",
            "::1]:7",
            "::1:50000",
            "300.1.1.1",
            "10.0.0",
            "http://x",
            "a,b",
            "a..b",
            "a:b:7",
            "[cp-1]:7",
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.starts_with(&format!("{bad:?} is not ADDRESS,")), "{error}");
        }
        assert!(parse(&"a.".repeat(200)).is_err());
        let token = Token::generate().expose();
        let last = if token.ends_with('a') { "b" } else { "a" };
        let mistyped = format!("{}{last}", &token[..token.len() - 1]);
        for secret in [token.as_str(), &mistyped, &format!("{}:50000", *token)] {
            assert!(parse(secret).is_err(), "a token would be looked up in DNS");
        }
    }
}
