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
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

use super::identity::{
    ANNOUNCE, Generation, HEADER, HEADER_WITH_THIRD, INDIRECT_PING, Identity, MEMBER, has_third,
    put_identity,
};
use super::roster::{Roster, Short, Slot, short};

pub use muster_transport::endpoint::MAX_DATAGRAM;

const SWIM: u8 = 0x10;
const ACCUSE: u8 = 0x11;
const REFUTE: u8 = 0x12;
const ASK: u8 = 0x13;
const CARD: u8 = 0x14;

const PREAMBLE: usize = 15;
/// Bounds on the metadata.
const MAX_ADDRESSES: usize = 8;
const MAX_VERSION: usize = 32;

/// Metadata that a member publishes about itself. Accepted only from the member itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Card {
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
    pub(crate) card: u32,
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
    pub(crate) own: Generation,
    /// True when the sender searches for the receiver in any generation.
    pub(crate) seeks: bool,
    /// Node that [`GHOST`] stands for in it.
    pub(crate) ghost: Option<Short>,
}

/// Slot of the one node outside the roster that a packet may name: the member on whose behalf
/// another probes this node. It may be newer than this node's directory. Without an answer, it
/// would hold this node down.
const GHOST: Slot = Slot::MAX;

/// Datagram outside foca's protocol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// The sender will hold the receiver down unless it refutes.
    Accuse {
        incarnation: u16,
    },
    /// The refutation; the preamble holds all its data.
    Refute,
    /// The sender lacks the receiver's metadata.
    Ask,
    Card(Card),
}

/// Reads a datagram from the member in slot `from`. Returns None when it is about an unknown node.
pub(crate) fn open(
    datagram: &[u8],
    roster: &Roster,
    from: Slot,
    me: Identity,
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
        card: buf.get_u32(),
    };
    let body = match kind {
        SWIM => match open_swim(buf, roster, from, me, &preamble)? {
            Some(body) => body,
            None => return Ok(None),
        },
        ACCUSE if buf.remaining() == 2 => Body::Note(Note::Accuse { incarnation: buf.get_u16() }),
        REFUTE if buf.is_empty() => Body::Note(Note::Refute),
        ASK if buf.is_empty() => Body::Note(Note::Ask),
        CARD => Body::Note(Note::Card(open_card(buf)?)),
        ACCUSE | REFUTE | ASK => return Err(WireError::Malformed),
        unknown => return Err(WireError::Unknown(unknown)),
    };
    Ok(Some((preamble, body)))
}

fn open_swim(
    mut buf: &[u8],
    roster: &Roster,
    from: Slot,
    me: Identity,
    preamble: &Preamble,
) -> Result<Option<Body>, WireError> {
    if buf.remaining() < 2 {
        return Err(WireError::Malformed);
    }
    let (tag, n) = (buf.get_u8(), buf.get_u8());
    let mut packet = Vec::with_capacity(HEADER_WITH_THIRD + 2 + buf.len());
    put_identity(&mut packet, Identity { slot: from, generation: preamble.generation });
    packet.put_u16(preamble.incarnation);
    put_identity(&mut packet, Identity { slot: me.slot, generation: preamble.to_generation });
    packet.put_u8(tag);
    packet.put_u8(n);
    let mut ghost = None;
    if has_third(tag).ok_or(WireError::Malformed)? {
        if buf.remaining() < 20 {
            return Err(WireError::Malformed);
        }
        let (third, generation) = (get_short(&mut buf), buf.get_u32());
        let slot = match roster.slot_of_short(&third) {
            Some(slot) => slot,
            None if tag == INDIRECT_PING => {
                ghost = Some(third);
                GHOST
            }
            None => return Ok(None),
        };
        put_identity(&mut packet, Identity { slot, generation });
        packet.put_bytes(0, HEADER_WITH_THIRD - HEADER - 8);
    }
    let mut own = preamble.to_generation;
    if !buf.is_empty() {
        own = own.max(open_members(buf, roster, me, &mut packet)?);
        if tag == ANNOUNCE {
            return Err(WireError::Malformed);
        }
    }
    Ok(Some(Body::Swim(Swim { packet, own, seeks: tag == ANNOUNCE, ghost })))
}

/// Appends the members that the roster holds. Returns the highest generation of ours among them.
/// Older generations of ours are dropped: they are obsolete.
fn open_members(
    mut buf: &[u8],
    roster: &Roster,
    me: Identity,
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
    let mut own = 0;
    for _ in 0..count {
        let (third, generation) = (get_short(&mut buf), buf.get_u32());
        let (incarnation, state) = (buf.get_u16(), buf.get_u8());
        if state > 2 {
            return Err(WireError::Malformed);
        }
        let Some(slot) = roster.slot_of_short(&third) else { continue };
        if slot == me.slot {
            own = own.max(generation);
            if generation != me.generation {
                continue;
            }
        }
        put_identity(packet, Identity { slot, generation });
        packet.put_u16(incarnation);
        packet.put_u8(state);
        packet.put_bytes(0, MEMBER - 11);
        kept += 1;
    }
    packet[at..at + 2].copy_from_slice(&kept.to_be_bytes());
    Ok(own)
}

fn open_card(buf: &[u8]) -> Result<Card, WireError> {
    let (card, rest) = postcard::take_from_bytes::<Card>(buf).map_err(|_| WireError::Malformed)?;
    let fits = rest.is_empty()
        && card.addresses.len() <= MAX_ADDRESSES
        && card.version.len() <= MAX_VERSION
        && card.version.bytes().all(|b| b.is_ascii_graphic());
    if fits { Ok(card) } else { Err(WireError::Malformed) }
}

fn get_short(buf: &mut &[u8]) -> Short {
    let mut short = Short::default();
    buf.copy_to_slice(&mut short);
    short
}

fn begin(kind: u8, preamble: &Preamble, capacity: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(PREAMBLE + capacity);
    out.put_u8(kind);
    out.put_u32(preamble.generation);
    out.put_u16(preamble.incarnation);
    out.put_u32(preamble.to_generation);
    out.put_u32(preamble.card);
    out
}

/// Writes a foca packet as a datagram; returns it with foca's current incarnation. Members that
/// have left the roster are dropped. Returns None when the packet is about such a member.
pub(crate) fn seal_swim(
    mut packet: &[u8],
    roster: &Roster,
    ghost: Option<Short>,
    card: u32,
) -> Option<(Bytes, u16)> {
    packet.advance(4);
    let generation = packet.get_u32();
    let incarnation = packet.get_u16();
    packet.advance(4);
    let to_generation = packet.get_u32();
    let preamble = Preamble { generation, incarnation, to_generation, card };
    let mut out = begin(SWIM, &preamble, 22 + packet.len());
    let tag = packet.get_u8();
    out.put_u8(tag);
    out.put_u8(packet.get_u8());
    if has_third(tag) == Some(true) {
        let third = match packet.get_u32() {
            GHOST => ghost?,
            slot => short(&roster.node(slot)?),
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
                out.put_slice(&short(&id));
                out.put_slice(&rest);
                kept += 1;
            }
        }
        out[at..at + 2].copy_from_slice(&kept.to_be_bytes());
    }
    Some((out.freeze(), incarnation))
}

/// Writes a datagram outside foca's protocol.
pub(crate) fn seal(preamble: &Preamble, note: &Note) -> Bytes {
    let (kind, rest) = match note {
        Note::Accuse { incarnation } => (ACCUSE, incarnation.to_be_bytes().to_vec()),
        Note::Refute => (REFUTE, Vec::new()),
        Note::Ask => (ASK, Vec::new()),
        Note::Card(card) => {
            let card = postcard::to_stdvec(&bounded(card));
            (CARD, card.expect("plain data always serialises into a growing buffer"))
        }
    };
    let mut out = begin(kind, preamble, rest.len());
    out.put_slice(&rest);
    out.freeze()
}

/// Returns the metadata cut to the bounds that every receiver accepts.
pub(crate) fn bounded(card: &Card) -> Card {
    let mut card = card.clone();
    card.addresses.truncate(MAX_ADDRESSES);
    card.version.retain(|c| c.is_ascii_graphic());
    card.version.truncate(MAX_VERSION);
    card
}

#[cfg(test)]
mod tests;
