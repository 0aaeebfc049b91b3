//! Parsers of field values: one function per type; text in, value or error text out.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use muster_types::name::is_operator_name;
use muster_types::number::parse_digits;
use muster_types::{ETCD_CLIENT_PORT, ETCD_PEER_PORT, NodeName, OperatorRole, PublicKey, Role};

/// A network in CIDR notation (RFC 4632): address and prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    address: IpAddr,
    bits: u8,
}

impl Subnet {
    /// Returns whether the address is in this network. An IPv4 address never is in an IPv6 one.
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address, self.bits) == Some(self.address)
    }
}

/// The address with all but its first `bits` bits cleared; `None` if it is shorter than that.
fn masked(address: IpAddr, bits: u8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let cut = 32u32.checked_sub(u32::from(bits))?;
            Some(IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(cut).unwrap_or(0)).into()))
        }
        IpAddr::V6(v6) => {
            let cut = 128u32.checked_sub(u32::from(bits))?;
            Some(IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(cut).unwrap_or(0)).into()))
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{} is not a subnet such as 10.0.0.0/24", quoted(text));
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = parse_digits(bits).ok_or_else(wrong)?;
        let network = masked(address, bits).ok_or_else(wrong)?;
        if network != address {
            return Err(format!(
                "{} has host bits set, did you mean {network}/{bits}?",
                quoted(text)
            ));
        }
        Ok(Self { address, bits })
    }
}

/// The text as shown in a message: quoted and truncated.
pub(super) fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() { format!("{cut:?}…") } else { format!("{cut:?}") }
}

/// Parses one of the known words; the error suggests the nearest one.
fn parse_one_of<T: FromStr>(text: &str, words: &[&str]) -> Result<T, String> {
    text.parse().map_err(|_| {
        let near = nearest(text, words.iter().copied());
        let hint = near.map(|word| format!(", did you mean {word}?")).unwrap_or_default();
        format!("{} is not one of {}{hint}", quoted(text), words.join(", "))
    })
}

/// The known word closest to the text, if any is close enough.
pub(super) fn nearest<'a>(text: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_ascii_lowercase();
    words
        .map(|word| (strsim::damerau_levenshtein(&text, &word.to_ascii_lowercase()), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

pub(super) const ROLES: &[&str] = &["control-plane", "worker"];

pub(super) fn role(text: &str) -> Result<Role, String> {
    parse_one_of(text, ROLES)
}

pub(super) const OPERATOR_ROLES: &[&str] = &["admin", "operator", "reader", "backup"];

pub(super) fn operator_role(text: &str) -> Result<OperatorRole, String> {
    parse_one_of(text, OPERATOR_ROLES)
}

pub(super) fn node_name(text: &str) -> Result<NodeName, String> {
    text.parse().map_err(|error: muster_types::name::NodeNameError| error.to_string())
}

/// Cluster names follow the rules for node names: both appear in certificates and file names.
pub(super) fn cluster_name(text: &str) -> Result<String, String> {
    text.parse::<NodeName>().map(String::from).map_err(|_| {
        format!(
            "{} is not a cluster name: 1 to 63 lower-case letters, digits or '-', neither first \
             nor last a '-'",
            quoted(text)
        )
    })
}

pub(super) fn operator_name(text: &str) -> Result<String, String> {
    if is_operator_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{} is not an operator name: 1 to 63 letters, digits, '-', '_', '.' or '@'",
            quoted(text)
        ))
    }
}

pub(super) fn public_key(text: &str) -> Result<PublicKey, String> {
    text.parse().map_err(|error: muster_types::id::IdError| error.to_string())
}

pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr =
        text.parse().map_err(|_| format!("{} is not an IP address", quoted(text)))?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(format!("{text} is not an address at which others can reach this node"));
    }
    Ok(address)
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') && !text.contains('\0') && text.len() < 4096 {
        Ok(PathBuf::from(text))
    } else {
        Err(format!("{} is not an absolute path", quoted(text)))
    }
}

/// A port that is not one of etcd's.
pub(super) fn port(text: &str) -> Result<u16, String> {
    let port: u16 = parse_digits(text).ok_or_else(|| format!("{} is not a port", quoted(text)))?;
    if [ETCD_CLIENT_PORT, ETCD_PEER_PORT].contains(&port) {
        return Err(format!("is {port}, which etcd uses: choose another"));
    }
    Ok(port)
}

/// A number of founders.
pub(super) fn expect(text: &str) -> Result<u8, String> {
    let expect: u8 =
        parse_digits(text).ok_or_else(|| format!("{} is not a number", quoted(text)))?;
    if expect.is_multiple_of(2) {
        return Err(format!(
            "is {expect}: an even number survives no more failures than {}; use 1, 3, 5 or 7",
            expect.saturating_sub(1)
        ));
    }
    Ok(expect)
}

/// A DNS name: labels of letters, digits, '-' and '_', at most 253 characters (RFC 1035).
pub(super) fn domain(text: &str) -> Result<String, String> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if bare.len() <= 253 && bare.split('.').all(label) {
        Ok(bare.to_ascii_lowercase())
    } else {
        Err(format!("{} is not a DNS name", quoted(text)))
    }
}

/// A DNS server: an IP address and an optional port (default 53).
pub(super) fn dns_server(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    match (text.parse::<SocketAddr>(), bare.parse::<IpAddr>()) {
        (Ok(server), _) if server.port() != 0 => Ok(server),
        (_, Ok(address)) => Ok(SocketAddr::new(address, 53)),
        _ => Err(format!("{} is not an IP address with an optional port", quoted(text))),
    }
}

/// A host (IP address or DNS name; IPv6 in brackets) and an optional port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

/// Parses a [`Peer`]. An IPv6 address needs brackets only with a port.
pub(super) fn peer(text: &str) -> Result<Peer, String> {
    let wrong = || format!("{} is not HOST:PORT", quoted(text));
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Peer { host: host(&address), port: None });
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, behind) = rest.split_once(']').ok_or_else(wrong)?;
            let address: std::net::Ipv6Addr = inside.parse().map_err(|_| wrong())?;
            let port = if behind.is_empty() {
                None
            } else {
                Some(behind.strip_prefix(':').ok_or_else(wrong)?)
            };
            (host(&address.into()), port)
        }
        None => match text.split_once(':') {
            Some((name, port)) => (domain(name).map_err(|_| wrong())?, Some(port)),
            None => (domain(text).map_err(|_| wrong())?, None),
        },
    };
    let port = port.map(|p| parse_digits::<u16>(p).filter(|p| *p != 0).ok_or_else(wrong));
    let numeric = host.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    if numeric && host.parse::<IpAddr>().is_err() {
        return Err(format!("{} is neither an IP address nor a DNS name", quoted(text)));
    }
    Ok(Peer { host, port: port.transpose()? })
}

fn host(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}
