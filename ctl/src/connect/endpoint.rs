//! Endpoints as people give them, and the addresses behind them.

use std::net::{IpAddr, SocketAddr};

use muster_proto::DEFAULT_PORT;

/// The addresses of an endpoint: `ADDRESS`, `ADDRESS:PORT`, `NAME` or `NAME:PORT`.
pub(super) async fn resolve(endpoint: &str) -> Result<Vec<SocketAddr>, String> {
    let bare = endpoint.strip_prefix('[').and_then(|e| e.strip_suffix(']')).unwrap_or(endpoint);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, DEFAULT_PORT)]);
    }
    if let Ok(address) = endpoint.parse::<SocketAddr>() {
        return Ok(vec![address]);
    }
    let (name, port) = match endpoint.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().map_err(|_| "is not HOST:PORT".to_owned())?),
        None => (endpoint, DEFAULT_PORT),
    };
    let found = tokio::net::lookup_host((name, port)).await;
    let addresses: Vec<SocketAddr> =
        found.map_err(|error| format!("look up {name}: {error}"))?.take(8).collect();
    if addresses.is_empty() { Err(format!("{name} has no address")) } else { Ok(addresses) }
}

/// Whether a text can be an endpoint at all.
pub(crate) fn parse(text: &str) -> Result<String, String> {
    let fits = (1..=260).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b));
    if fits {
        Ok(text.to_owned())
    } else {
        Err("an endpoint is ADDRESS, ADDRESS:PORT, NAME or NAME:PORT".to_owned())
    }
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
}
