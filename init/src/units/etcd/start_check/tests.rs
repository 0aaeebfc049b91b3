use std::fs;

use muster_types::NodeName;
use muster_types::etcd::{EtcdGeneration, EtcdPeer, InitialClusterState, url};

use super::super::binary::{Binary, Version};
use super::super::credentials::{Authorities, Credential, Credentials};
use super::super::spec::Tuning;
use super::super::start_record::InitialCluster;
use super::*;

pub(crate) fn spec(generation: u32) -> EtcdSpec {
    let credential = Credential::new(Vec::new(), zeroize::Zeroizing::default());
    let certificate = rustls_pki_types::CertificateDer::from(vec![0]);
    let name: NodeName = "cp-1".parse().unwrap();
    let peer = "127.0.0.1:2380".parse().unwrap();
    let own = EtcdPeer { name: name.clone(), url: url(peer) };
    EtcdSpec {
        binary: Binary {
            path: "/usr/bin/etcd".into(),
            version: Version { major: 3, minor: 4, patch: 23 },
        },
        generation: EtcdGeneration(generation),
        name,
        initial: InitialCluster {
            state: InitialClusterState::New,
            token: "one".to_owned(),
            members: vec![own],
        },
        known_to_cluster: false,
        peer,
        client: "127.0.0.1:2379".parse().unwrap(),
        tuning: Tuning::default(),
        credentials: Credentials {
            authorities: Authorities::new(vec![certificate]).unwrap(),
            server: credential.clone(),
            peer: credential.clone(),
            client: credential,
        },
    }
}

/// Creates the files that Muster checks for.
fn pretend_etcd_ran(dir: &EtcdDir, generation: EtcdGeneration) {
    let member = dir.data(generation).join("member");
    fs::create_dir_all(member.join("wal")).unwrap();
    fs::create_dir_all(member.join("snap")).unwrap();
    fs::write(member.join("wal/0000000000000000-0000000000000000.wal"), "").unwrap();
    fs::write(member.join("snap/db"), "").unwrap();
}

fn dir() -> (tempfile::TempDir, EtcdDir) {
    let directory = tempfile::tempdir().unwrap();
    let dir = EtcdDir::new(directory.path().join("etcd"));
    (directory, dir)
}

#[test]
fn a_member_that_never_wrote_anything_may_start_again_as_new() {
    let (_directory, dir) = dir();
    let spec = spec(1);
    dir.check_start(&spec).unwrap();
    assert!(matches!(dir.generation_state(spec.generation), Ok(GenerationState::Started(_))));
    dir.check_start(&spec).unwrap();
}

#[test]
fn a_member_whose_data_vanished_is_lost_whatever_of_it_vanished() {
    for gone in ["", "member", "member/wal", "member/snap/db"] {
        let (_directory, dir) = dir();
        let spec = spec(1);
        dir.check_start(&spec).unwrap();
        pretend_etcd_ran(&dir, spec.generation);
        dir.check_start(&spec).unwrap();
        let gone = dir.data(spec.generation).join(gone);
        if gone.is_dir() {
            fs::remove_dir_all(&gone).unwrap();
        } else {
            fs::remove_file(&gone).unwrap();
        }
        let refused = dir.check_start(&spec).unwrap_err();
        assert!(matches!(refused, StartError::DataLost { .. }), "{}: {refused}", gone.display());
    }
}

#[test]
fn a_member_the_cluster_knows_is_lost_when_the_whole_disk_is() {
    let (_directory, dir) = dir();
    let mut spec = spec(1);
    spec.known_to_cluster = true;
    assert!(matches!(dir.check_start(&spec), Err(StartError::DataLost { .. })));
}

#[test]
fn the_next_generation_starts_and_the_old_ones_are_forgotten() {
    let (_directory, dir) = dir();
    for generation in [1, 2, 10] {
        dir.check_start(&spec(generation)).unwrap();
        pretend_etcd_ran(&dir, EtcdGeneration(generation));
    }
    dir.remove_generations_before(EtcdGeneration(10)).unwrap();
    let mut left: Vec<_> =
        fs::read_dir(dir.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["g10", "g10.started"]);
}

#[test]
fn data_of_another_origin_or_cluster_is_not_touched() {
    let (_directory, dir) = dir();
    pretend_etcd_ran(&dir, EtcdGeneration(1));
    assert!(matches!(dir.check_start(&spec(1)), Err(StartError::Unmanaged { .. })));
    dir.check_start(&spec(2)).unwrap();
    pretend_etcd_ran(&dir, EtcdGeneration(2));
    let mut other = spec(2);
    other.initial.token = "two".to_owned();
    assert!(matches!(dir.check_start(&other), Err(StartError::OtherCluster { .. })));
}

#[test]
fn a_damaged_or_newer_record_stops_the_start() {
    let (_directory, dir) = dir();
    dir.check_start(&spec(1)).unwrap();
    let path = dir.root().join("g1.started");
    for (text, newer) in [("", false), ("{}", false), (r#"{"format":2,"more":1}"#, true)] {
        fs::write(&path, text).unwrap();
        let refused = dir.check_start(&spec(1)).unwrap_err();
        let is_newer = matches!(refused, StartError::EtcdDir(EtcdDirError::Newer { .. }));
        assert_eq!(is_newer, newer, "{refused}");
    }
}
