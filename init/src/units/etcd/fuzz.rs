//! Fuzz targets: etcd's output and the files kept about it. `muster_fuzz` defines a target.

use std::fs;

use muster_fuzz::{Verdict, refused, target};
use muster_types::NodeName;
use muster_types::etcd::{EtcdGeneration, EtcdMemberId, EtcdPeer, InitialClusterState, url};
use prost::Message as _;
use ring::digest::{SHA256, digest};

use super::binary::Version;
use super::client::snapshot::{SnapshotDigest, SnapshotVerifier};
use super::client::{EtcdMember, wire};
use super::dir::{EtcdDir, GenerationState};
use super::log_errors::last_error;
use super::start_record::{InitialCluster, StartRecord};
use crate::facts::BootId;
use crate::logs::LastLines;

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

/// etcd's printed output: version, log, last error.
#[test]
fn etcd_output() {
    let log = r#"{"level":"fatal","ts":"t","caller":"c","msg":"discovery failed","error":"bind"}"#;
    let seeds = ["3.5.9", "3.4.0-rc.1+git", log, "panic: x\n\ngoroutine 1 [running]:\n"];
    target("etcd_output").seeds(seeds.map(Vec::from)).run(|bytes| {
        let mut lines = LastLines::new(20);
        for piece in bytes.chunks(7) {
            lines.feed(piece);
        }
        let kept = lines.finish();
        assert!(kept.len() <= 20 && kept.iter().all(|line| line.len() <= 3 * 2048));
        let plain = |line: &String| !line.contains(|c: char| c.is_control() && c != '\t');
        assert!(kept.iter().all(plain));
        let said = last_error(&kept);
        let Ok(text) = std::str::from_utf8(bytes) else { return refused("not text") };
        if let Ok(id) = text.parse::<EtcdMemberId>() {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        if let Ok(id) = text.parse::<BootId>() {
            assert_eq!(id.as_str(), text);
        }
        if let Ok(version) = text.parse::<Version>() {
            assert_eq!(version.to_string().parse(), Ok(version));
            return Verdict::Accepted;
        }
        if said.is_some() { Verdict::Accepted } else { refused("no version and no complaint") }
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

/// `gN.started`: the start record of a generation.
#[test]
fn etcd_record() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let dir = EtcdDir::new(directory.path().to_owned());
    let name: NodeName = "cp-1".parse().expect("a node name");
    let peer = "192.0.2.1:2380".parse().expect("an address");
    let initial = InitialCluster {
        state: InitialClusterState::New,
        token: "token".to_owned(),
        members: vec![EtcdPeer { name: name.clone(), url: url(peer) }],
    };
    dir.write(EtcdGeneration(0), &StartRecord::new(name, initial)).expect("written");
    let path = directory.path().join("g0.started");
    let seed = fs::read(&path).expect("read");
    target("etcd_record").seed(seed).tries(2000).run(move |bytes| {
        let _kept = &directory;
        fs::write(&path, bytes).expect("a small file is written");
        match dir.generation_state(EtcdGeneration(0)) {
            Ok(GenerationState::Started(record) | GenerationState::Lost(record)) => {
                let text = serde_json::to_vec(&record).expect("a start record always serializes");
                fs::write(&path, text).expect("a small file is written");
                let again = dir.generation_state(EtcdGeneration(0)).expect("just written");
                let (GenerationState::Started(found) | GenerationState::Lost(found)) = again else {
                    panic!("{again:?}")
                };
                assert_eq!(found, record);
                Verdict::Accepted
            }
            Ok(other) => panic!("a record that is there counts as {other:?}"),
            Err(error) => refused(error),
        }
    });
}
