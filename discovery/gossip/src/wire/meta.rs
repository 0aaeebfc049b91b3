//! Metadata that a member publishes about itself, and its protobuf form.

use std::net::SocketAddr;

use muster_messages::gossip::NodeMeta as MetaMessage;
use muster_types::address::address_strings;
use muster_types::limits::{MAX_GOSSIP_ADDRESSES, MAX_GOSSIP_VERSION};
use prost::Message as _;

use super::WireError;

/// Metadata that a member publishes about itself. Accepted only from the member itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeMeta {
    /// Addresses to dial it at now; the first eight.
    pub addresses: Vec<SocketAddr>,
    /// Build that it runs; the first 32 characters.
    pub version: String,
    /// Version of the cluster's config that it applies.
    pub config_version: u64,
}

/// Returns the metadata cut to the bounds that every receiver accepts.
pub(crate) fn truncated(meta: &NodeMeta) -> NodeMeta {
    let mut meta = meta.clone();
    meta.addresses.truncate(MAX_GOSSIP_ADDRESSES);
    meta.version.retain(|c| c.is_ascii_graphic());
    meta.version.truncate(MAX_GOSSIP_VERSION);
    meta
}

pub(super) fn encode(meta: &NodeMeta) -> Vec<u8> {
    let NodeMeta { addresses, version, config_version } = truncated(meta);
    let addresses = address_strings(&addresses);
    MetaMessage { addresses, version, config_version }.encode_to_vec()
}

/// Reads metadata within the bounds. Unknown fields are ignored.
pub(super) fn decode(bytes: &[u8]) -> Result<NodeMeta, WireError> {
    let message = MetaMessage::decode(bytes).map_err(|_| WireError::Malformed)?;
    let MetaMessage { addresses, version, config_version } = message;
    let fits = addresses.len() <= MAX_GOSSIP_ADDRESSES
        && version.len() <= MAX_GOSSIP_VERSION
        && version.bytes().all(|b| b.is_ascii_graphic());
    let addresses = addresses.iter().map(|text| text.parse()).collect::<Result<_, _>>();
    match addresses {
        Ok(addresses) if fits => Ok(NodeMeta { addresses, version, config_version }),
        _ => Err(WireError::Malformed),
    }
}
