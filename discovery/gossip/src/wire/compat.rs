//! Samples of every datagram, and each as a later version may write it.

use foca::{Header, Member, Message};
use muster_compat::{check, with_new_field_protobuf};

use super::tests::{at, id, packet, rosters};
use super::*;

/// Bytes that stand for fields of a later version.
const ADDED: [u8; 3] = [0xaa; 3];

/// Returns the datagram as a later version may write it: with a longer preamble and body, a new
/// field in the metadata, longer entries, and an entry with a new state.
pub(crate) fn as_later_version(datagram: &[u8]) -> Vec<u8> {
    let (head, body) = datagram.split_at(2 + usize::from(PREAMBLE));
    let mut later = vec![head[0], head[1] + 3];
    later.extend_from_slice(&head[2..]);
    later.extend(ADDED);
    match head[0] {
        SWIM => extend_swim(&mut later, body),
        META => later.extend(with_new_field_protobuf(body)),
        _ => {
            later.extend_from_slice(body);
            later.extend(ADDED);
        }
    }
    later
}

fn extend_swim(later: &mut Vec<u8>, body: &[u8]) {
    let third = if has_third(body[0]) == Some(true) { 20 } else { 0 };
    let (message, mut members) = body.split_at(2 + third);
    later.extend_from_slice(message);
    let (count, length) = (members.get_u16(), members.get_u8());
    later.put_u16(count + 1);
    later.put_u8(length + 3);
    // First: a reader that stops at an unknown state loses the others.
    let mut new_state = short_id(&id(3)).to_vec();
    new_state.extend([0, 0, 0, 99, 0, 99, 3]);
    for entry in std::iter::once(new_state.as_slice()).chain(members.chunks(length.into())) {
        later.extend_from_slice(entry);
        later.extend(ADDED);
    }
    later.extend(ADDED);
}

const PREAMBLE_OF_1: Preamble =
    Preamble { generation: 11, incarnation: 5, to_generation: 22, meta_version: 3 };

/// Checks that 2 reads the sample, and the same from a later version, as `expected`.
fn read_as(name: &str, encoded: &[u8], roster: &Roster, expected: &Body) {
    let sample = check(&format!("gossip/{name}.hex"), encoded);
    let (from, me) = (roster.slot(&id(1)).unwrap(), at(roster, 2, 22));
    for datagram in [sample.clone(), as_later_version(&sample)] {
        let (preamble, body) = decode(&datagram, roster, from, me).unwrap().unwrap();
        assert_eq!((preamble, &body), (PREAMBLE_OF_1, expected), "{name}");
    }
    let mut unknown = sample;
    unknown[0] = META + 1;
    assert_eq!(decode(&unknown, roster, from, me), Err(WireError::UnknownKind(META + 1)));
}

#[test]
fn every_swim_message_is_read_from_its_sample_and_from_a_later_version() {
    let (roster, _) = rosters();
    let (target, origin, probe_number) = (at(&roster, 3, 33), at(&roster, 3, 33), 9);
    let messages = [
        ("ping", Message::Ping(9)),
        ("ack", Message::Ack(9)),
        ("ping-req", Message::PingReq { target, probe_number }),
        ("indirect-ping", Message::IndirectPing { origin, probe_number }),
        ("indirect-ack", Message::IndirectAck { target, probe_number }),
        ("forwarded-ack", Message::ForwardedAck { origin, probe_number }),
        ("announce", Message::Announce),
        ("feed", Message::Feed),
        ("gossip", Message::Gossip),
        ("turn-undead", Message::TurnUndead),
    ];
    let states = [(1, 11, State::Alive), (2, 22, State::Suspect), (3, 33, State::Down)];
    let all = states.map(|(n, generation, state)| {
        Member::new(at(&roster, n, generation), u16::from(n) + 3, state)
    });
    for (name, message) in messages {
        // foca adds members to all others.
        let is_bare = matches!(message, Message::Announce | Message::TurnUndead);
        let is_announce = message == Message::Announce;
        let (src, dst) = (at(&roster, 1, 11), at(&roster, 2, 22));
        let header = Header { src, src_incarnation: 5, dst, message };
        let sent = packet(&header, if is_bare { &[] } else { &all });
        let mut received = sent.clone();
        if is_bare && !is_announce {
            received.put_u16(0);
        }
        let body = Swim { packet: received, own_generation: 22, is_announce, unknown_origin: None };
        let (datagram, incarnation) = encode_swim(&sent, &roster, None, 3).unwrap();
        assert_eq!(incarnation, 5);
        read_as(name, &datagram, &roster, &Body::Swim(body));
    }
}

#[test]
fn every_other_datagram_is_read_from_its_sample_and_from_a_later_version() {
    let (roster, _) = rosters();
    let meta = NodeMeta {
        addresses: vec![([192, 0, 2, 1], 50_000).into(), "[2001:db8::1]:50000".parse().unwrap()],
        version: "1.2.3".to_owned(),
        config_version: 300,
    };
    let notes = [
        ("suspect", Note::Suspect { incarnation: 4 }),
        ("refute", Note::Refute),
        ("request-meta", Note::RequestMeta),
        ("meta", Note::Meta(meta)),
    ];
    for (name, note) in notes {
        let datagram = encode(&PREAMBLE_OF_1, &note);
        read_as(name, &datagram, &roster, &Body::Note(note));
    }
}

#[test]
fn a_swim_message_of_a_later_version_is_unknown_and_not_malformed() {
    let (roster, _) = rosters();
    let mut datagram = encode(&PREAMBLE_OF_1, &Note::Refute).to_vec();
    datagram[0] = SWIM;
    datagram.extend([10, 0]);
    let me = at(&roster, 2, 22);
    assert_eq!(decode(&datagram, &roster, 0, me), Err(WireError::UnknownMessage(10)));
}

/// Lengths may grow, but none may be shorter than in this version or exceed the datagram.
#[test]
fn lengths_that_do_not_fit_are_malformed() {
    let (roster, _) = rosters();
    let (from, me) = (roster.slot(&id(1)).unwrap(), at(&roster, 2, 22));
    let ping = muster_compat::sample("gossip/ping.hex");
    let count = 2 + usize::from(PREAMBLE) + 2;
    let changes = [(1, PREAMBLE - 1), (1, u8::MAX), (count + 1, 4), (count + 2, ENTRY - 1)];
    for (place, value) in changes {
        let mut datagram = ping.clone();
        datagram[place] = value;
        assert_eq!(decode(&datagram, &roster, from, me), Err(WireError::Malformed), "{place}");
    }
    for length in 0..ping.len() {
        let cut = &ping[..length];
        assert_eq!(decode(cut, &roster, from, me), Err(WireError::Malformed), "{length}");
    }
}
