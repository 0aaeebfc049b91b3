//! Datagram format between two members: at most [`MAX_DATAGRAM`] bytes, numbers in network order.
//!
//! ```text
//! datagram: kind u8 | length of the preamble u8 | preamble | body
//! preamble: sender's generation u32, incarnation u16 | generation it believes the receiver has u32
//!           | version of the sender's metadata u32
//! SWIM:     message u8 | probe number u8 | third node [u8; 16], generation u32 (some messages)
//!           | number of entries u16 | length of an entry u8 | entries
//! entry:    node [u8; 16] | generation u32 | incarnation u16 | state u8
//! SUSPECT:  incarnation u16
//! META:     protobuf (muster.gossip.v1.NodeMeta)
//! ```
//!
//! A later version may lengthen the preamble, an entry and a body. A reader takes the fields that it
//! knows and ignores the rest. It skips an entry with an unknown state and ignores a datagram of an
//! unknown kind or with an unknown SWIM message.
//!
//! Neither sender nor receiver is named: the QUIC session has authenticated both, so no member can
//! impersonate another. Third nodes are named by the first half of their id. One outside the
//! receiver's roster is dropped before any other code sees the datagram.

mod meta;

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use foca::State;

use super::identity::{
    ANNOUNCE, Generation, HEADER, HEADER_WITH_THIRD, INDIRECT_PING, MEMBER, MemberIdentity,
    has_third, put_identity, state_byte,
};
use super::roster::{Roster, ShortId, Slot, short_id};

pub use meta::NodeMeta;
pub(crate) use meta::truncated;
pub use muster_transport::endpoint::MAX_DATAGRAM;

const SWIM: u8 = 0x10;
const SUSPECT: u8 = 0x11;
const REFUTE: u8 = 0x12;
const REQUEST_META: u8 = 0x13;
const META: u8 = 0x14;

/// Length of the preamble that this version writes.
const PREAMBLE: u8 = 14;

/// Length of an entry in the first version, and the least that any version accepts.
const MIN_ENTRY: u8 = 23;

/// Length of the entries that this version writes.
const ENTRY: u8 = MIN_ENTRY;

/// Reasons for which a datagram is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("a gossip datagram of {0} bytes exceeds {MAX_DATAGRAM}")]
    TooLong(usize),
    #[error("a gossip datagram is malformed")]
    Malformed,
    #[error("a gossip datagram of unknown kind {0:#04x}")]
    UnknownKind(u8),
    #[error("a gossip datagram with unknown SWIM message {0}")]
    UnknownMessage(u8),
}

impl WireError {
    /// Returns true for a datagram that a later version may send.
    pub fn is_unknown(self) -> bool {
        matches!(self, Self::UnknownKind(_) | Self::UnknownMessage(_))
    }
}

impl From<TryGetError> for WireError {
    fn from(_: TryGetError) -> Self {
        Self::Malformed
    }
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
    let kind = buf.try_get_u8()?;
    let preamble = match kind {
        SWIM | SUSPECT | REFUTE | REQUEST_META | META => decode_preamble(&mut buf)?,
        unknown => return Err(WireError::UnknownKind(unknown)),
    };
    let note = match kind {
        SWIM => {
            let swim = decode_swim(buf, roster, from, me, &preamble)?;
            return Ok(swim.map(|swim| (preamble, Body::Swim(swim))));
        }
        SUSPECT => Note::Suspect { incarnation: buf.try_get_u16()? },
        REFUTE => Note::Refute,
        REQUEST_META => Note::RequestMeta,
        _ => Note::Meta(meta::decode(buf)?),
    };
    Ok(Some((preamble, Body::Note(note))))
}

fn decode_preamble(buf: &mut &[u8]) -> Result<Preamble, WireError> {
    let length = buf.try_get_u8()?;
    let mut fields = take(buf, length.into())?;
    Ok(Preamble {
        generation: fields.try_get_u32()?,
        incarnation: fields.try_get_u16()?,
        to_generation: fields.try_get_u32()?,
        meta_version: fields.try_get_u32()?,
    })
}

fn decode_swim(
    mut buf: &[u8],
    roster: &Roster,
    from: Slot,
    me: MemberIdentity,
    preamble: &Preamble,
) -> Result<Option<Swim>, WireError> {
    let (tag, n) = (buf.try_get_u8()?, buf.try_get_u8()?);
    let has_third = has_third(tag).ok_or(WireError::UnknownMessage(tag))?;
    let mut packet = Vec::with_capacity(HEADER_WITH_THIRD + buf.len());
    put_identity(&mut packet, MemberIdentity { slot: from, generation: preamble.generation });
    packet.put_u16(preamble.incarnation);
    put_identity(&mut packet, MemberIdentity { slot: me.slot, generation: preamble.to_generation });
    packet.put_u8(tag);
    packet.put_u8(n);
    let mut unknown_origin = None;
    if has_third {
        let (third, generation) = (take_short(&mut buf)?, buf.try_get_u32()?);
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
    let header = packet.len();
    let mut own_generation = decode_members(buf, roster, me, &mut packet)?;
    if tag == ANNOUNCE {
        // This version announces without members, and foca accepts none.
        packet.truncate(header);
        own_generation = 0;
    }
    Ok(Some(Swim {
        packet,
        own_generation: own_generation.max(preamble.to_generation),
        is_announce: tag == ANNOUNCE,
        unknown_origin,
    }))
}

/// Appends the members that the roster holds, except those in an unknown state. Returns the highest
/// generation of ours among them. Older generations of ours are dropped: they are obsolete.
fn decode_members(
    mut buf: &[u8],
    roster: &Roster,
    me: MemberIdentity,
    packet: &mut Vec<u8>,
) -> Result<Generation, WireError> {
    let (count, length) = (buf.try_get_u16()?, buf.try_get_u8()?);
    if length < MIN_ENTRY {
        return Err(WireError::Malformed);
    }
    let entries = take(&mut buf, usize::from(count) * usize::from(length))?;
    let at = packet.len();
    packet.put_u16(0);
    let mut kept: u16 = 0;
    let mut own_generation = 0;
    for mut entry in entries.chunks_exact(length.into()) {
        let (node, generation) = (take_short(&mut entry)?, entry.try_get_u32()?);
        let (incarnation, state) = (entry.try_get_u16()?, entry.try_get_u8()?);
        let Some(slot) = roster.slot_of_short(&node) else { continue };
        if state > state_byte(State::Down) {
            continue;
        }
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

/// Returns the next `length` bytes and advances past them.
fn take<'a>(buf: &mut &'a [u8], length: usize) -> Result<&'a [u8], WireError> {
    let (taken, rest) = buf.split_at_checked(length).ok_or(WireError::Malformed)?;
    *buf = rest;
    Ok(taken)
}

fn take_short(buf: &mut &[u8]) -> Result<ShortId, WireError> {
    let mut short = ShortId::default();
    buf.try_copy_to_slice(&mut short)?;
    Ok(short)
}

fn start_datagram(kind: u8, preamble: &Preamble, capacity: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(2 + usize::from(PREAMBLE) + capacity);
    out.put_u8(kind);
    out.put_u8(PREAMBLE);
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
    let mut out = start_datagram(SWIM, &preamble, 25 + packet.len());
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
    let at = out.len();
    out.put_u16(0);
    out.put_u8(ENTRY);
    let mut kept: u16 = 0;
    // Some messages have no members, not even their number.
    for _ in 0..packet.try_get_u16().unwrap_or(0) {
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
    Some((out.freeze(), incarnation))
}

/// Writes a datagram outside foca's protocol.
pub(crate) fn encode(preamble: &Preamble, note: &Note) -> Bytes {
    let (kind, rest) = match note {
        Note::Suspect { incarnation } => (SUSPECT, incarnation.to_be_bytes().to_vec()),
        Note::Refute => (REFUTE, Vec::new()),
        Note::RequestMeta => (REQUEST_META, Vec::new()),
        Note::Meta(meta) => (META, meta::encode(meta)),
    };
    let mut out = start_datagram(kind, preamble, rest.len());
    out.put_slice(&rest);
    out.freeze()
}

#[cfg(test)]
pub(crate) mod compat;
#[cfg(test)]
mod tests;
