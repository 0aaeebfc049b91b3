//! Fuzz target of the file `birth`; `muster_fuzz` defines a target.

use std::fs;
use std::sync::Arc;

use muster_fuzz::{Verdict, refused, target};
use muster_types::ClusterId;

use super::{PromiseStore, seal};
use crate::birth::testing::{certificate, fixed_founders, proposal};
use crate::birth::{Ballot, BirthRecord, Commitment, Decision, Promise, Vote};

/// The file `birth`: raw, and as its format and content with a correct checksum.
#[test]
fn birth_record() {
    let founders = fixed_founders(3);
    let proposal = Arc::new(proposal(&founders));
    let certificate = Arc::new(certificate(&founders));
    let (node, ballot) = (founders[0].node_id(), Ballot { round: 2, by: founders[1].node_id() });
    let vote = Some(Vote { ballot, decision: Decision::Born(Arc::clone(&certificate)) });
    let commitments = [
        Commitment::None,
        Commitment::Promised(Promise { proposal, ballot, vote }),
        Commitment::Born(certificate),
        Commitment::Joined(ClusterId::from_bytes([4; 32])),
    ];
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("birth");
    let store = PromiseStore::create(directory.path(), node).expect("a record is made");
    let files = commitments.map(|commitment| store.encode(&BirthRecord { epoch: 3, commitment }));
    let behind = files.clone().map(|file| [b"=", &file[7..file.len() - 32]].concat());
    let [whole, ..] = files;
    target("birth_record").seed(whole).seeds(behind).longest(8 << 10).run(move |bytes| {
        let _kept = &directory;
        let sealed = bytes.strip_prefix(b"=").and_then(|rest| rest.split_first());
        let sealed = sealed.map(|(format, payload)| seal(*format, payload));
        fs::write(&path, sealed.as_deref().unwrap_or(bytes)).expect("a small file is written");
        match store.read() {
            Err(error) => {
                assert!(error.to_string().contains("birth record"), "{error}");
                refused(error)
            }
            Ok(record) => {
                fs::write(&path, store.encode(&record)).expect("a small file is written");
                assert_eq!(store.read().expect("just written"), record);
                Verdict::Accepted
            }
        }
    });
}
