//! Fuzz targets of etcd's responses and snapshots. `muster_fuzz` defines a target.

use muster_fuzz::{Verdict, refused, target};
use prost::Message as _;
use ring::digest::{SHA256, digest};

use super::snapshot::{SnapshotDigest, SnapshotVerifier};
use super::{EtcdMember, wire};

/// etcd's gRPC responses.
#[test]
fn etcd_answer() {
    let member = wire::Member {
        id: 0x1234,
        name: "cp-1".to_owned(),
        peer_ur_ls: vec!["https://192.0.2.1:2380".to_owned()],
        client_ur_ls: vec!["https://192.0.2.1:2379".to_owned()],
        is_learner: true,
    };
    let members = wire::MembersResponse { members: vec![member; 3], ..Default::default() };
    let status = wire::StatusResponse {
        version: "3.5.9".to_owned(),
        db_size: -1,
        leader: 7,
        errors: vec!["NOSPACE".to_owned()],
        ..Default::default()
    };
    let alarms = wire::AlarmResponse::default();
    let kind = |n: u8, body: Vec<u8>| [vec![n], body].concat();
    let seeds = [
        kind(0, members.encode_to_vec()),
        kind(1, status.encode_to_vec()),
        kind(2, alarms.encode_to_vec()),
        kind(3, wire::SnapshotResponse::default().encode_to_vec()),
    ];
    target("etcd_answer").seeds(seeds).memory(256 << 10, 160).run(|bytes| {
        let Some((kind, body)) = bytes.split_first() else { return refused("nothing at all") };
        let read = match kind % 4 {
            0 => wire::MembersResponse::decode(body).map(|reply| {
                for listed in reply.members.into_iter().map(EtcdMember::from) {
                    assert_eq!(listed.id.to_string().parse(), Ok(listed.id));
                }
            }),
            1 => wire::StatusResponse::decode(body).map(|_| ()),
            2 => wire::AlarmResponse::decode(body).map(|_| ()),
            _ => wire::SnapshotResponse::decode(body).map(|_| ()),
        };
        match read {
            Ok(()) => Verdict::Accepted,
            Err(error) => refused(error),
        }
    });
}

/// An etcd snapshot: length and hash.
#[test]
fn etcd_snapshot() {
    let database = vec![7_u8; 512];
    let whole = [&database[..], digest(&SHA256, &database).as_ref()].concat();
    target("etcd_snapshot").seed(whole).longest(2048).run(|bytes| {
        if let Some(found) =
            std::str::from_utf8(bytes).ok().and_then(|t| t.parse::<SnapshotDigest>().ok())
        {
            assert_eq!(found.to_string().parse(), Ok(found));
            return Verdict::Accepted;
        }
        let check = |piece: usize| {
            let mut check = SnapshotVerifier::default();
            bytes.chunks(piece).for_each(|piece| check.update(piece));
            check.finish()
        };
        let found = check(1024);
        assert_eq!(found, check(1), "it depends on how the stream was cut");
        assert_eq!(found, check(33), "it depends on how the stream was cut");
        match found {
            Ok(verified) => {
                let (data, said) = bytes.split_at(bytes.len() - 32);
                assert_eq!(digest(&SHA256, data).as_ref(), said);
                assert_eq!(verified.size, bytes.len() as u64);
                Verdict::Accepted
            }
            Err(error) => refused(error),
        }
    });
}
