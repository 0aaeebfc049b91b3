use super::super::binary::{Binary, Version};
use super::super::credentials::{Authorities, Credential, Credentials};
use super::super::spec::{InitialState, Tuning};
use super::*;

pub(crate) fn spec(generation: u32) -> Spec {
    let credential = Credential::new(Vec::new(), zeroize::Zeroizing::default());
    let certificate = rustls_pki_types::CertificateDer::from(vec![0]);
    let name: NodeName = "cp-1".parse().unwrap();
    let peer = "127.0.0.1:2380".parse().unwrap();
    Spec {
        binary: Binary {
            path: "/usr/bin/etcd".into(),
            version: Version { major: 3, minor: 4, patch: 23 },
        },
        generation: Generation(generation),
        name: name.clone(),
        initial: Initial {
            state: InitialState::New,
            token: "one".to_owned(),
            members: [(name, peer)].into(),
        },
        heard_of: false,
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
fn pretend_etcd_ran(home: &Home, generation: Generation) {
    let member = home.data(generation).join("member");
    fs::create_dir_all(member.join("wal")).unwrap();
    fs::create_dir_all(member.join("snap")).unwrap();
    fs::write(member.join("wal/0000000000000000-0000000000000000.wal"), "").unwrap();
    fs::write(member.join("snap/db"), "").unwrap();
}

fn home() -> (tempfile::TempDir, Home) {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path().join("etcd"));
    (directory, home)
}

#[test]
fn a_member_that_never_wrote_anything_may_start_again_as_new() {
    let (_directory, home) = home();
    let spec = spec(1);
    home.admit(&spec).unwrap();
    assert!(matches!(home.presence(spec.generation), Ok(Presence::Begun(_))));
    home.admit(&spec).unwrap();
}

#[test]
fn a_member_whose_data_vanished_is_lost_whatever_of_it_vanished() {
    for gone in ["", "member", "member/wal", "member/snap/db"] {
        let (_directory, home) = home();
        let spec = spec(1);
        home.admit(&spec).unwrap();
        pretend_etcd_ran(&home, spec.generation);
        home.admit(&spec).unwrap();
        let gone = home.data(spec.generation).join(gone);
        if gone.is_dir() {
            fs::remove_dir_all(&gone).unwrap();
        } else {
            fs::remove_file(&gone).unwrap();
        }
        let refused = home.admit(&spec).unwrap_err();
        assert!(matches!(refused, AdmitError::Lost { .. }), "{}: {refused}", gone.display());
    }
}

#[test]
fn a_member_the_cluster_knows_is_lost_when_the_whole_disk_is() {
    let (_directory, home) = home();
    let mut spec = spec(1);
    spec.heard_of = true;
    assert!(matches!(home.admit(&spec), Err(AdmitError::Lost { .. })));
}

#[test]
fn the_next_generation_starts_and_the_old_ones_are_forgotten() {
    let (_directory, home) = home();
    for generation in [1, 2, 10] {
        home.admit(&spec(generation)).unwrap();
        pretend_etcd_ran(&home, Generation(generation));
    }
    home.forget_before(Generation(10)).unwrap();
    let mut left: Vec<_> =
        fs::read_dir(home.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["g10", "g10.started"]);
}

#[test]
fn data_of_another_origin_or_cluster_is_not_touched() {
    let (_directory, home) = home();
    pretend_etcd_ran(&home, Generation(1));
    assert!(matches!(home.admit(&spec(1)), Err(AdmitError::Strange { .. })));
    home.admit(&spec(2)).unwrap();
    pretend_etcd_ran(&home, Generation(2));
    let mut other = spec(2);
    other.initial.token = "two".to_owned();
    assert!(matches!(home.admit(&other), Err(AdmitError::OtherCluster { .. })));
}

#[test]
fn a_damaged_or_newer_record_stops_the_start() {
    let (_directory, home) = home();
    home.admit(&spec(1)).unwrap();
    let path = home.record_path(Generation(1));
    for (text, newer) in [("", false), ("{}", false), (r#"{"format":2,"more":1}"#, true)] {
        fs::write(&path, text).unwrap();
        let refused = home.admit(&spec(1)).unwrap_err();
        let is_newer = matches!(refused, AdmitError::Home(HomeError::Newer { .. }));
        assert_eq!(is_newer, newer, "{refused}");
    }
}
