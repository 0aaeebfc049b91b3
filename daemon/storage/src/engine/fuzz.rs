//! Fuzz targets of the engine's files and records. `muster_fuzz` defines a target.

use std::fs;

use muster_fuzz::{Verdict, refused, target};
use muster_types::{ClusterId, NodeId};

use super::directory::{self, OpenError, StoreIdentity};
use super::envelope;
use super::high_water_mark::HighWaterMark;
use super::store::{Engine, Table};
use crate::error::StoreError;

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

#[test]
fn sealed_record() {
    let seal = |key: &[u8], value: &[u8]| envelope::seal(Table::Meta, key, value);
    target("sealed_record").seed(seal(b"vote", b"some value")).seed(seal(b"vote", b"")).run(
        move |bytes| match envelope::unseal(Table::Meta, b"vote", bytes) {
            Ok(value) => {
                assert_eq!(seal(b"vote", value), bytes);
                assert!(envelope::unseal(Table::Log, b"vote", bytes).is_err());
                Verdict::Accepted
            }
            Err(why) => {
                assert!(why.contains("vote"), "{why}");
                refused(why)
            }
        },
    );
}

/// The file `mark`; after a `=`, only the two numbers in it.
#[test]
fn mark() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("mark");
    HighWaterMark::create(&path).expect("it is made");
    let seed = fs::read(&path).expect("read");
    let numbers = b"=\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x08";
    target("mark").seed(seed).seed(*numbers).tries(2000).run(move |bytes| {
        let _kept = &directory;
        let slots = bytes.strip_prefix(b"=").and_then(|numbers| numbers.split_at_checked(8));
        let file = slots.map(|(one, two)| {
            let mut file = vec![0; 1024];
            for (at, number) in [(0, one), (512, two)] {
                let number: Vec<u8> = number.iter().copied().chain([0; 8]).take(8).collect();
                file[at..at + 8].copy_from_slice(&number);
                file[at + 8..at + 12].copy_from_slice(&crc32fast::hash(&number).to_be_bytes());
            }
            file
        });
        fs::write(&path, file.as_deref().unwrap_or(bytes)).expect("a small file is written");
        match HighWaterMark::open(path.clone()) {
            Ok((mark, last)) => {
                let next = last.saturating_add(1);
                mark.set(next).expect("it is written");
                assert_eq!(HighWaterMark::open(path.clone()).expect("just written").1, next);
                Verdict::Accepted
            }
            Err(error) => refused(error),
        }
    });
}

/// `store.json`: identity of the store.
#[test]
fn store_header() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let identity = StoreIdentity { node: node(1), cluster: ClusterId::from_bytes([2; 32]) };
    let open = |_: &std::path::Path| Err(StoreError::Stopped("as far as the engine".to_owned()));
    let engine = Engine { name: "none", open };
    let directory = root.path().join("raft");
    assert!(directory::open(&directory, &identity, engine).is_err(), "the engine opens nothing");
    let seed = fs::read(directory.join("store.json")).expect("it is written first");
    target("store_header").seed(seed).tries(400).run(move |bytes| {
        let _kept = &root;
        fs::write(directory.join("store.json"), bytes).expect("a small file is written");
        match directory::open(&directory, &identity, engine) {
            Err(OpenError::Store(StoreError::Stopped(_))) => Verdict::Accepted,
            Err(error) => refused(error),
            Ok(_) => panic!("the engine opens nothing"),
        }
    });
}
