use muster_types::NodeId;
use proptest::prelude::*;

use super::*;
use crate::identity::{LocalCodec, MEMBER};
use foca::Codec;
use foca::{Header, Member, Message, State};
use muster_messages::gossip::NodeMeta as MetaMessage;
use prost::Message as _;

pub(super) fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

/// Returns two rosters of the same members with different slots.
pub(super) fn rosters() -> (Roster, Roster) {
    let all = |numbers: &[u8]| numbers.iter().map(|n| id(*n)).collect();
    let a = Roster::default().with_members(&all(&[1, 2, 3]));
    let b = Roster::default()
        .with_members(&all(&[3]))
        .with_members(&all(&[2, 3]))
        .with_members(&all(&[1, 2, 3]));
    assert_ne!(a.slot(&id(1)), b.slot(&id(1)));
    (a, b)
}

pub(super) fn at(roster: &Roster, n: u8, generation: Generation) -> MemberIdentity {
    MemberIdentity { slot: roster.slot(&id(n)).unwrap(), generation }
}

pub(super) fn packet(
    header: &Header<MemberIdentity>,
    members: &[Member<MemberIdentity>],
) -> Vec<u8> {
    let mut packet = Vec::new();
    LocalCodec.encode_header(header, &mut packet).unwrap();
    if !members.is_empty() {
        packet.put_u16(u16::try_from(members.len()).unwrap());
        for member in members {
            LocalCodec.encode_member(member, &mut packet).unwrap();
        }
    }
    packet
}

#[test]
fn a_packet_means_the_same_in_another_members_slots() {
    let (a, b) = rosters();
    for message in [0, 1] {
        let message = |roster: &Roster| match message {
            0 => Message::Ping(7),
            _ => Message::PingReq { target: at(roster, 3, 33), probe_number: 9 },
        };
        let header = |roster: &Roster| Header {
            src: at(roster, 1, 11),
            src_incarnation: 5,
            dst: at(roster, 2, 22),
            message: message(roster),
        };
        let members = |roster: &Roster| {
            [
                Member::new(at(roster, 3, 33), 4, State::Suspect),
                Member::new(at(roster, 2, 22), 6, State::Down),
            ]
        };
        let sent = packet(&header(&a), &members(&a));
        let (datagram, incarnation) = encode_swim(&sent, &a, None, 3).unwrap();
        assert_eq!(incarnation, 5);
        assert!(datagram.len() <= sent.len(), "foca's size limit must bound the datagram");

        let me = at(&b, 2, 22);
        let (preamble, body) = decode(&datagram, &b, b.slot(&id(1)).unwrap(), me).unwrap().unwrap();
        assert_eq!(
            preamble,
            Preamble { generation: 11, incarnation: 5, to_generation: 22, meta_version: 3 }
        );
        let received = packet(&header(&b), &members(&b));
        assert_eq!(
            body,
            Body::Swim(Swim {
                packet: received,
                own_generation: 22,
                is_announce: false,
                unknown_origin: None
            })
        );
    }
}

#[test]
fn nodes_outside_the_receivers_directory_are_dropped() {
    let (a, _) = rosters();
    let b = Roster::default().with_members(&[1, 2].map(id).into());
    let me = at(&b, 2, 22);
    let header =
        |message| Header { src: at(&a, 1, 11), src_incarnation: 0, dst: at(&a, 2, 22), message };
    let members = [3, 1].map(|n| Member::new(at(&a, n, 1), 0, State::Alive));
    let (datagram, _) =
        encode_swim(&packet(&header(Message::Gossip), &members), &a, None, 0).unwrap();
    let (_, body) = decode(&datagram, &b, me.slot, me).unwrap().unwrap();
    let Body::Swim(Swim { packet: kept, .. }) = body else { panic!("{body:?}") };
    assert_eq!(kept[HEADER..HEADER + 2], [0, 1]);
    assert_eq!(kept.len(), HEADER + 2 + MEMBER);

    let about = Message::PingReq { target: at(&a, 3, 1), probe_number: 1 };
    let (datagram, _) = encode_swim(&packet(&header(about), &[]), &a, None, 0).unwrap();
    assert_eq!(decode(&datagram, &b, me.slot, me), Ok(None));

    let asked = Message::IndirectPing { origin: at(&a, 3, 1), probe_number: 1 };
    let (datagram, _) = encode_swim(&packet(&header(asked), &[]), &a, None, 0).unwrap();
    let (_, body) = decode(&datagram, &b, me.slot, me).unwrap().unwrap();
    let Body::Swim(Swim { unknown_origin, .. }) = body else { panic!("{body:?}") };
    assert_eq!(unknown_origin, Some(short_id(&id(3))), "a probe on another's behalf is answered");
}

#[test]
fn an_update_about_an_earlier_own_generation_is_recognised() {
    let (a, b) = rosters();
    let header = Header {
        src: at(&a, 1, 11),
        src_incarnation: 0,
        dst: at(&a, 2, 22),
        message: Message::Gossip,
    };
    for (generation, kept) in [(21, 0), (22, 1), (23, 0)] {
        let news = [Member::new(at(&a, 2, generation), 0, State::Down)];
        let (datagram, _) = encode_swim(&packet(&header, &news), &a, None, 0).unwrap();
        let me = at(&b, 2, 22);
        let (_, body) = decode(&datagram, &b, b.slot(&id(1)).unwrap(), me).unwrap().unwrap();
        let Body::Swim(Swim { packet, own_generation, .. }) = body else { panic!("{body:?}") };
        assert_eq!(own_generation, generation.max(22));
        assert_eq!(packet[HEADER + 1], kept);
    }
}

#[test]
fn metadata_is_cut_by_the_sender_and_rejected_uncut() {
    let (a, _) = rosters();
    let me = at(&a, 2, 22);
    let preamble = Preamble { generation: 1, incarnation: 2, to_generation: 3, meta_version: 4 };
    let big = NodeMeta {
        addresses: vec![([192, 0, 2, 1], 1).into(); 20],
        version: format!("1.2 {}", "x".repeat(100)),
        config_version: u64::MAX,
    };
    let datagram = encode(&preamble, &Note::Meta(big.clone()));
    let (seen, body) = decode(&datagram, &a, 0, me).unwrap().unwrap();
    let Body::Note(Note::Meta(meta)) = body else { panic!("{body:?}") };
    assert_eq!(seen, preamble);
    assert_eq!((meta.addresses.len(), meta.version.len()), (8, 32));

    let valid = MetaMessage::decode(&datagram[2 + usize::from(PREAMBLE)..]).unwrap();
    let address = "192.0.2.1:1".to_owned();
    let invalid = [
        MetaMessage { addresses: vec![address; 9], ..valid.clone() },
        MetaMessage { addresses: vec!["host:1".to_owned()], ..valid.clone() },
        MetaMessage { version: "x".repeat(33), ..valid.clone() },
        MetaMessage { version: "1 2".to_owned(), ..valid.clone() },
    ];
    for message in invalid {
        let mut uncut = datagram[..2 + usize::from(PREAMBLE)].to_vec();
        uncut.extend(message.encode_to_vec());
        assert_eq!(decode(&uncut, &a, 0, me), Err(WireError::Malformed), "{message:?}");
    }
    let mut longer = datagram.to_vec();
    longer.push(0);
    assert_eq!(decode(&longer, &a, 0, me), Err(WireError::Malformed), "not protobuf");
}

#[test]
fn the_largest_metadata_fits_into_a_datagram() {
    let longest = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535";
    let meta = NodeMeta {
        addresses: vec![longest.parse().unwrap(); 8],
        version: "x".repeat(32),
        config_version: u64::MAX,
    };
    let preamble = Preamble { generation: 1, incarnation: 2, to_generation: 3, meta_version: 4 };
    let (a, _) = rosters();
    let datagram = encode(&preamble, &Note::Meta(meta.clone()));
    let decoded = decode(&datagram, &a, 0, at(&a, 2, 22)).unwrap().unwrap();
    assert_eq!(decoded, (preamble, Body::Note(Note::Meta(meta))));
}

/// foca rejects a packet above its limit, so the largest datagram must become such a packet again.
#[test]
fn the_largest_packet_fits_into_a_datagram_and_back() {
    let (a, _) = rosters();
    let (from, me) = (a.slot(&id(1)).unwrap(), at(&a, 2, 22));
    let limit = crate::Settings::default().foca(3, 0).max_packet_size.get();
    let third = Message::PingReq { target: at(&a, 3, 33), probe_number: 9 };
    for (message, length) in [(Message::Ping(9), HEADER), (third, HEADER_WITH_THIRD)] {
        let header = Header { src: at(&a, 1, 11), src_incarnation: 5, dst: me, message };
        let members = (limit - length - 2) / MEMBER;
        let members = vec![Member::new(at(&a, 3, 33), 4, State::Suspect); members];
        let sent = packet(&header, &members);
        assert!(sent.len() <= limit && sent.len() + MEMBER > limit);
        let (datagram, _) = encode_swim(&sent, &a, None, 3).unwrap();
        assert!(datagram.len() <= MAX_DATAGRAM, "{} of {}", datagram.len(), sent.len());
        let (_, body) = decode(&datagram, &a, from, me).unwrap().unwrap();
        let Body::Swim(swim) = body else { panic!("{body:?}") };
        assert_eq!(swim.packet, sent);
        // No datagram has room for one more entry, so no reader gets a larger packet.
        assert!(datagram.len() + usize::from(ENTRY) > MAX_DATAGRAM);
    }
}

proptest! {
    #[test]
    fn garbage_is_refused_or_read_and_never_more(
        kind in 0x0eu8..0x17,
        bytes in proptest::collection::vec(any::<u8>(), 0..1300),
    ) {
        let (a, _) = rosters();
        let me = at(&a, 2, 22);
        let mut datagram = vec![kind];
        datagram.extend(bytes);
        match decode(&datagram, &a, 0, me) {
            Ok(Some((_, Body::Swim(Swim { packet, .. })))) => {
                // foca's reader understands every accepted packet to the last byte.
                let mut rest = packet.as_slice();
                LocalCodec.decode_header(&mut rest).unwrap();
                if !rest.is_empty() {
                    for _ in 0..rest.get_u16() {
                        LocalCodec.decode_member(&mut rest).unwrap();
                    }
                }
                prop_assert!(rest.is_empty());
            }
            Ok(_) | Err(WireError::Malformed) => {}
            Err(WireError::TooLong(length)) => prop_assert!(length > MAX_DATAGRAM),
            Err(WireError::UnknownKind(unknown)) => {
                prop_assert!(!(SWIM..=META).contains(&unknown));
            }
            Err(WireError::UnknownMessage(unknown)) => prop_assert!(unknown > 9),
        }
    }

    #[test]
    fn a_damaged_datagram_changes_no_more_than_what_it_says(
        at_byte in 0usize..60,
        to in any::<u8>(),
    ) {
        let (a, _) = rosters();
        let header = Header {
            src: at(&a, 1, 11),
            src_incarnation: 0,
            dst: at(&a, 2, 22),
            message: Message::Gossip,
        };
        let news = [Member::new(at(&a, 3, 1), 0, State::Alive)];
        let (datagram, _) = encode_swim(&packet(&header, &news), &a, None, 0).unwrap();
        let mut damaged = datagram.to_vec();
        let place = at_byte % damaged.len();
        damaged[place] = to;
        let decoded = decode(&damaged, &a, a.slot(&id(1)).unwrap(), at(&a, 2, 22));
        if let Ok(Some((_, Body::Swim(Swim { packet, .. })))) = decoded {
            let mut rest = packet.as_slice();
            let header = LocalCodec.decode_header(&mut rest).unwrap();
            prop_assert_eq!(header.src.slot, a.slot(&id(1)).unwrap());
            prop_assert_eq!(header.dst.slot, a.slot(&id(2)).unwrap());
        }
    }
}
