//! Identity of a member in foca: a slot and a generation, eight bytes.
//!
//! foca's own packets are written with slots by [`LocalCodec`] and never leave the process.
//! `wire` turns them into datagrams and back. Their parts are at least as long as in the datagram,
//! so that foca's size limit bounds the datagram too.

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message, State};

use super::roster::Slot;

/// Number of a member's run. A node starts with a higher generation than before. It takes the next
/// one when the others hold it down or remember a higher one.
pub type Generation = u32;

/// A member in one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemberIdentity {
    pub(crate) slot: Slot,
    pub(crate) generation: Generation,
}

impl foca::Identity for MemberIdentity {
    type Addr = Slot;

    fn renew(&self) -> Option<Self> {
        let generation = self.generation.checked_add(1)?;
        Some(Self { slot: self.slot, generation })
    }

    fn addr(&self) -> Slot {
        self.slot
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.generation > adversary.generation
    }
}

/// Lengths of a header without and with a third party, and of a member. Their counterparts in a
/// datagram with members are at most as long: all before the number of entries and the length of
/// an entry, and an entry.
pub(crate) const HEADER: usize = 20;
pub(crate) const HEADER_WITH_THIRD: usize = 39;
pub(crate) const MEMBER: usize = 23;

/// Codec of foca's packets with slots.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalCodec;

/// Packet that this process did not create, or that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed or oversized local gossip packet")]
pub(crate) struct LocalCodecError;

/// Returns the parts of a message: tag, probe number and third party.
pub(crate) fn parts(message: &Message<MemberIdentity>) -> (u8, u8, Option<MemberIdentity>) {
    match message {
        Message::Ping(n) => (PING, *n, None),
        Message::Ack(n) => (1, *n, None),
        Message::PingReq { target, probe_number } => (PING_REQ, *probe_number, Some(*target)),
        Message::IndirectPing { origin, probe_number } => {
            (INDIRECT_PING, *probe_number, Some(*origin))
        }
        Message::IndirectAck { target, probe_number } => (4, *probe_number, Some(*target)),
        Message::ForwardedAck { origin, probe_number } => (5, *probe_number, Some(*origin)),
        Message::Announce => (ANNOUNCE, 0, None),
        Message::Feed => (7, 0, None),
        Message::Gossip => (GOSSIP, 0, None),
        Message::TurnUndead => (9, 0, None),
        Message::Broadcast => (10, 0, None), // never made: custom broadcasts are off
    }
}

const PING: u8 = 0;
const PING_REQ: u8 = 2;
pub(crate) const INDIRECT_PING: u8 = 3;
pub(crate) const ANNOUNCE: u8 = 6;
const GOSSIP: u8 = 8;
/// Offset of a packet's tag: after two identities and an incarnation.
const TAG_AT: usize = 18;

/// Returns true for the tags that carry a third party; None for an unknown tag.
pub(crate) fn has_third(tag: u8) -> Option<bool> {
    match tag {
        0 | 1 | 6..=9 => Some(false),
        2..=5 => Some(true),
        _ => None,
    }
}

fn message(tag: u8, n: u8, third: Option<MemberIdentity>) -> Option<Message<MemberIdentity>> {
    Some(match (tag, third) {
        (PING, None) => Message::Ping(n),
        (1, None) => Message::Ack(n),
        (PING_REQ, Some(target)) => Message::PingReq { target, probe_number: n },
        (INDIRECT_PING, Some(origin)) => Message::IndirectPing { origin, probe_number: n },
        (4, Some(target)) => Message::IndirectAck { target, probe_number: n },
        (5, Some(origin)) => Message::ForwardedAck { origin, probe_number: n },
        (ANNOUNCE, None) => Message::Announce,
        (7, None) => Message::Feed,
        (GOSSIP, None) => Message::Gossip,
        (9, None) => Message::TurnUndead,
        _ => return None,
    })
}

pub(crate) fn put_identity(buf: &mut impl BufMut, id: MemberIdentity) {
    buf.put_u32(id.slot);
    buf.put_u32(id.generation);
}

/// For a request to probe a target on our behalf, returns our own probe of that target in the same
/// round.
pub(crate) fn probe_of(request: &[u8]) -> Option<(MemberIdentity, Vec<u8>)> {
    let target = request.get(HEADER..HEADER + 8)?;
    if request[TAG_AT] != PING_REQ {
        return None;
    }
    let mut packet = request[..HEADER].to_vec();
    packet[TAG_AT - 8..TAG_AT].copy_from_slice(target);
    packet[TAG_AT] = PING;
    let mut target = target;
    Some((get_identity(&mut target), packet))
}

/// Returns true for a packet that only carries updates and needs no answer.
pub(crate) fn is_gossip(packet: &[u8]) -> bool {
    packet.get(TAG_AT) == Some(&GOSSIP)
}

/// Returns true for an optional packet, which a later one or another receiver can replace: updates,
/// the search for a missing member, a probe on another's behalf.
pub(crate) fn is_optional(packet: &[u8]) -> bool {
    matches!(packet.get(TAG_AT), Some(&(PING_REQ | INDIRECT_PING | ANNOUNCE | GOSSIP)))
}

/// Readdresses the packet to another receiver.
pub(crate) fn gossip_to(mut packet: Vec<u8>, receiver: MemberIdentity) -> Vec<u8> {
    let mut id = &mut packet[TAG_AT - 8..TAG_AT];
    put_identity(&mut id, receiver);
    packet
}

fn get_identity(buf: &mut impl Buf) -> MemberIdentity {
    MemberIdentity { slot: buf.get_u32(), generation: buf.get_u32() }
}

pub(crate) const fn state_byte(state: State) -> u8 {
    match state {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    }
}

impl Codec<MemberIdentity> for LocalCodec {
    type Error = LocalCodecError;

    fn encode_header(
        &mut self,
        header: &Header<MemberIdentity>,
        mut buf: impl BufMut,
    ) -> Result<(), LocalCodecError> {
        let (tag, n, third) = parts(&header.message);
        let length = if third.is_some() { HEADER_WITH_THIRD } else { HEADER };
        if buf.remaining_mut() < length {
            return Err(LocalCodecError);
        }
        put_identity(&mut buf, header.src);
        buf.put_u16(header.src_incarnation);
        put_identity(&mut buf, header.dst);
        buf.put_u8(tag);
        buf.put_u8(n);
        if let Some(third) = third {
            put_identity(&mut buf, third);
            buf.put_bytes(0, HEADER_WITH_THIRD - HEADER - 8);
        }
        Ok(())
    }

    fn decode_header(
        &mut self,
        mut buf: impl Buf,
    ) -> Result<Header<MemberIdentity>, LocalCodecError> {
        if buf.remaining() < HEADER {
            return Err(LocalCodecError);
        }
        let src = get_identity(&mut buf);
        let src_incarnation = buf.get_u16();
        let dst = get_identity(&mut buf);
        let (tag, n) = (buf.get_u8(), buf.get_u8());
        let third = match has_third(tag) {
            Some(true) if buf.remaining() >= HEADER_WITH_THIRD - HEADER => {
                let third = get_identity(&mut buf);
                buf.advance(HEADER_WITH_THIRD - HEADER - 8);
                Some(third)
            }
            Some(false) => None,
            Some(true) | None => return Err(LocalCodecError),
        };
        let message = message(tag, n, third).ok_or(LocalCodecError)?;
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(
        &mut self,
        member: &Member<MemberIdentity>,
        mut buf: impl BufMut,
    ) -> Result<(), LocalCodecError> {
        if buf.remaining_mut() < MEMBER {
            return Err(LocalCodecError);
        }
        put_identity(&mut buf, *member.id());
        buf.put_u16(member.incarnation());
        buf.put_u8(state_byte(member.state()));
        buf.put_bytes(0, MEMBER - 11);
        Ok(())
    }

    fn decode_member(
        &mut self,
        mut buf: impl Buf,
    ) -> Result<Member<MemberIdentity>, LocalCodecError> {
        if buf.remaining() < MEMBER {
            return Err(LocalCodecError);
        }
        let id = get_identity(&mut buf);
        let incarnation = buf.get_u16();
        let state = match buf.get_u8() {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            _ => return Err(LocalCodecError),
        };
        buf.advance(MEMBER - 11);
        Ok(Member::new(id, incarnation, state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member sets up a session to answer, or to learn whether a member is alive.
    #[test]
    fn probes_and_answers_are_not_optional() {
        let id = MemberIdentity { slot: 1, generation: 1 };
        let messages = [
            (Message::Ping(1), false),
            (Message::Ack(1), false),
            (Message::PingReq { target: id, probe_number: 1 }, true),
            (Message::IndirectPing { origin: id, probe_number: 1 }, true),
            (Message::IndirectAck { target: id, probe_number: 1 }, false),
            (Message::ForwardedAck { origin: id, probe_number: 1 }, false),
            (Message::Announce, true),
            (Message::Feed, false),
            (Message::Gossip, true),
            (Message::TurnUndead, false),
        ];
        for (message, optional) in messages {
            let header = Header { src: id, src_incarnation: 0, dst: id, message: message.clone() };
            let mut packet = Vec::new();
            LocalCodec.encode_header(&header, &mut packet).unwrap();
            assert_eq!(is_optional(&packet), optional, "{message:?}");
        }
    }
}
