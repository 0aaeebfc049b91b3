//! Datagram format between two members: at most [`MAX_DATAGRAM`] bytes, numbers in network order.
//!
//! ```text
//! kind u8 | sender's generation u32, incarnation u16 | generation it believes the receiver has u32
//!         | version of the sender's metadata u32 | body
//! ```
//!
//! Neither sender nor receiver is named: the QUIC session has authenticated both, so no member can
//! impersonate another. Third nodes are named by the first half of their id. One outside the
//! receiver's roster is dropped before any other code sees the datagram.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use muster_types::limits::{MAX_GOSSIP_ADDRESSES, MAX_GOSSIP_VERSION};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

use super::identity::{
    ANNOUNCE, Generation, HEADER, HEADER_WITH_THIRD, INDIRECT_PING, MEMBER, MemberIdentity,
    has_third, put_identity,
};
use super::roster::{Roster, ShortId, Slot, short_id};

pub use muster_transport::endpoint::MAX_DATAGRAM;

const SWIM: u8 = 0x10;
const SUSPECT: u8 = 0x11;
const REFUTE: u8 = 0x12;
const REQUEST_META: u8 = 0x13;
const META: u8 = 0x14;

const PREAMBLE: usize = 15;

/// Metadata that a member publishes about itself. Accepted only from the member itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeMeta {
    /// Addresses to dial it at now; the first eight.
    pub addresses: Vec<SocketAddr>,
    /// Build that it runs; the first 32 characters.
    pub version: String,
    /// Version of the cluster's config that it applies.
    pub config_version: u64,
}

/// Reasons for which a datagram is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("a gossip datagram of {0} bytes exceeds {MAX_DATAGRAM}")]
    TooLong(usize),
    #[error("a gossip datagram is malformed")]
    Malformed,
    #[error("a gossip datagram of unknown kind {0:#04x}")]
    Unknown(u8),
}

/// Header of every datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Preamble {
    pub(crate) generation: Generation,
    pub(crate) incarnation: u16,
    /// Generation that the sender believes the receiver has; 0 when it knows none.
    pub(crate) to_generation: Generation,
    /// Version of the sender's metadata; 0 when it has none.
    pub(crate) meta_version: u32,
}

/// Datagram in this process's representation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Swim(Swim),
    Note(Note),
}

/// Packet for foca.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Swim {
    pub(crate) packet: Vec<u8>,
    /// Highest generation under which it names the receiver.
    pub(crate) own_generation: Generation,
    /// True when the sender searches for the receiver in any generation.
    pub(crate) is_announce: bool,
    /// Node that [`UNKNOWN_ORIGIN`] stands for in it.
    pub(crate) unknown_origin: Option<ShortId>,
}

/// Slot of the one node outside the roster that a packet may name: the member on whose behalf
/// another probes this node. It may be newer than this node's directory. Without an answer, it
/// would hold this node down.
const UNKNOWN_ORIGIN: Slot = Slot::MAX;

/// Datagram outside foca's protocol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// The sender will hold the receiver down unless it refutes.
    Suspect {
        incarnation: u16,
    },
    /// The refutation; the preamble holds all its data.
    Refute,
    /// The sender lacks the receiver's metadata.
    RequestMeta,
    Meta(NodeMeta),
}

/// Reads a datagram from the member in slot `from`. Returns None when it is about an unknown node.
pub(crate) fn decode(
    datagram: &[u8],
    roster: &Roster,
    from: Slot,
    me: MemberIdentity,
) -> Result<Option<(Preamble, Body)>, WireError> {
    if datagram.len() > MAX_DATAGRAM {
        return Err(WireError::TooLong(datagram.len()));
    }
    let mut buf = datagram;
    if buf.remaining() < PREAMBLE {
        return Err(WireError::Malformed);
    }
    let kind = buf.get_u8();
    let preamble = Preamble {
        generation: buf.get_u32(),
        incarnation: buf.get_u16(),
        to_generation: buf.get_u32(),
        meta_version: buf.get_u32(),
    };
    let body = match kind {
        SWIM => match decode_swim(buf, roster, from, me, &preamble)? {
            Some(body) => body,
            None => return Ok(None),
        },
        SUSPECT if buf.remaining() == 2 => Body::Note(Note::Suspect { incarnation: buf.get_u16() }),
        REFUTE if buf.is_empty() => Body::Note(Note::Refute),
        REQUEST_META if buf.is_empty() => Body::Note(Note::RequestMeta),
        META => Body::Note(Note::Meta(decode_meta(buf)?)),
        SUSPECT | REFUTE | REQUEST_META => return Err(WireError::Malformed),
        unknown => return Err(WireError::Unknown(unknown)),
    };
    Ok(Some((preamble, body)))
}

fn decode_swim(
    mut buf: &[u8],
    roster: &Roster,
    from: Slot,
    me: MemberIdentity,
    preamble: &Preamble,
) -> Result<Option<Body>, WireError> {
    if buf.remaining() < 2 {
        return Err(WireError::Malformed);
    }
    let (tag, n) = (buf.get_u8(), buf.get_u8());
    let mut packet = Vec::with_capacity(HEADER_WITH_THIRD + 2 + buf.len());
    put_identity(&mut packet, MemberIdentity { slot: from, generation: preamble.generation });
    packet.put_u16(preamble.incarnation);
    put_identity(&mut packet, MemberIdentity { slot: me.slot, generation: preamble.to_generation });
    packet.put_u8(tag);
    packet.put_u8(n);
    let mut unknown_origin = None;
    if has_third(tag).ok_or(WireError::Malformed)? {
        if buf.remaining() < 20 {
            return Err(WireError::Malformed);
        }
        let (third, generation) = (get_short(&mut buf), buf.get_u32());
        let slot = match roster.slot_of_short(&third) {
            Some(slot) => slot,
            None if tag == INDIRECT_PING => {
                unknown_origin = Some(third);
                UNKNOWN_ORIGIN
            }
            None => return Ok(None),
        };
        put_identity(&mut packet, MemberIdentity { slot, generation });
        packet.put_bytes(0, HEADER_WITH_THIRD - HEADER - 8);
    }
    let mut own_generation = preamble.to_generation;
    if !buf.is_empty() {
        own_generation = own_generation.max(decode_members(buf, roster, me, &mut packet)?);
        if tag == ANNOUNCE {
            return Err(WireError::Malformed);
        }
    }
    Ok(Some(Body::Swim(Swim {
        packet,
        own_generation,
        is_announce: tag == ANNOUNCE,
        unknown_origin,
    })))
}

/// Appends the members that the roster holds. Returns the highest generation of ours among them.
/// Older generations of ours are dropped: they are obsolete.
fn decode_members(
    mut buf: &[u8],
    roster: &Roster,
    me: MemberIdentity,
    packet: &mut Vec<u8>,
) -> Result<Generation, WireError> {
    if buf.remaining() < 2 {
        return Err(WireError::Malformed);
    }
    let count = buf.get_u16();
    if buf.remaining() != usize::from(count) * MEMBER {
        return Err(WireError::Malformed);
    }
    let at = packet.len();
    packet.put_u16(0);
    let mut kept: u16 = 0;
    let mut own_generation = 0;
    for _ in 0..count {
        let (third, generation) = (get_short(&mut buf), buf.get_u32());
        let (incarnation, state) = (buf.get_u16(), buf.get_u8());
        if state > 2 {
            return Err(WireError::Malformed);
        }
        let Some(slot) = roster.slot_of_short(&third) else { continue };
        if slot == me.slot {
            own_generation = own_generation.max(generation);
            if generation != me.generation {
                continue;
            }
        }
        put_identity(packet, MemberIdentity { slot, generation });
        packet.put_u16(incarnation);
        packet.put_u8(state);
        packet.put_bytes(0, MEMBER - 11);
        kept += 1;
    }
    packet[at..at + 2].copy_from_slice(&kept.to_be_bytes());
    Ok(own_generation)
}

fn decode_meta(buf: &[u8]) -> Result<NodeMeta, WireError> {
    let (meta, rest) =
        postcard::take_from_bytes::<NodeMeta>(buf).map_err(|_| WireError::Malformed)?;
    let fits = rest.is_empty()
        && meta.addresses.len() <= MAX_GOSSIP_ADDRESSES
        && meta.version.len() <= MAX_GOSSIP_VERSION
        && meta.version.bytes().all(|b| b.is_ascii_graphic());
    if fits { Ok(meta) } else { Err(WireError::Malformed) }
}

fn get_short(buf: &mut &[u8]) -> ShortId {
    let mut short = ShortId::default();
    buf.copy_to_slice(&mut short);
    short
}

fn start_datagram(kind: u8, preamble: &Preamble, capacity: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(PREAMBLE + capacity);
    out.put_u8(kind);
    out.put_u32(preamble.generation);
    out.put_u16(preamble.incarnation);
    out.put_u32(preamble.to_generation);
    out.put_u32(preamble.meta_version);
    out
}

/// Writes a foca packet as a datagram; returns it with foca's current incarnation. Members that
/// have left the roster are dropped. Returns None when the packet is about such a member.
pub(crate) fn encode_swim(
    mut packet: &[u8],
    roster: &Roster,
    unknown_origin: Option<ShortId>,
    meta_version: u32,
) -> Option<(Bytes, u16)> {
    packet.advance(4);
    let generation = packet.get_u32();
    let incarnation = packet.get_u16();
    packet.advance(4);
    let to_generation = packet.get_u32();
    let preamble = Preamble { generation, incarnation, to_generation, meta_version };
    let mut out = start_datagram(SWIM, &preamble, 22 + packet.len());
    let tag = packet.get_u8();
    out.put_u8(tag);
    out.put_u8(packet.get_u8());
    if has_third(tag) == Some(true) {
        let third = match packet.get_u32() {
            UNKNOWN_ORIGIN => unknown_origin?,
            slot => short_id(&roster.node(slot)?),
        };
        out.put_slice(&third);
        out.put_u32(packet.get_u32());
        packet.advance(HEADER_WITH_THIRD - HEADER - 8);
    }
    if packet.remaining() >= 2 + MEMBER {
        let count = packet.get_u16();
        let at = out.len();
        out.put_u16(0);
        let mut kept: u16 = 0;
        for _ in 0..count {
            let id = roster.node(packet.get_u32());
            let rest = packet.copy_to_bytes(7);
            packet.advance(MEMBER - 11);
            if let Some(id) = id {
                out.put_slice(&short_id(&id));
                out.put_slice(&rest);
                kept += 1;
            }
        }
        out[at..at + 2].copy_from_slice(&kept.to_be_bytes());
    }
    Some((out.freeze(), incarnation))
}

/// Writes a datagram outside foca's protocol.
pub(crate) fn encode(preamble: &Preamble, note: &Note) -> Bytes {
    let (kind, rest) = match note {
        Note::Suspect { incarnation } => (SUSPECT, incarnation.to_be_bytes().to_vec()),
        Note::Refute => (REFUTE, Vec::new()),
        Note::RequestMeta => (REQUEST_META, Vec::new()),
        Note::Meta(meta) => {
            let meta = postcard::to_stdvec(&truncated(meta));
            (META, meta.expect("plain data always serialises into a growing buffer"))
        }
    };
    let mut out = start_datagram(kind, preamble, rest.len());
    out.put_slice(&rest);
    out.freeze()
}

/// Returns the metadata cut to the bounds that every receiver accepts.
pub(crate) fn truncated(meta: &NodeMeta) -> NodeMeta {
    let mut meta = meta.clone();
    meta.addresses.truncate(MAX_GOSSIP_ADDRESSES);
    meta.version.retain(|c| c.is_ascii_graphic());
    meta.version.truncate(MAX_GOSSIP_VERSION);
    meta
}

#[cfg(test)]
mod tests;
