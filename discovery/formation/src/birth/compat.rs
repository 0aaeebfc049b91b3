//! Samples of what a birth stores and sends; `muster_compat` explains them.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use muster_compat::{check, with_new_field_protobuf, with_new_fields_msgpack};
use muster_messages::hello;
use muster_pki::identity::Identity;
use muster_types::ClusterId;
use prost::Message as _;

use super::certificate::{Certificate, Signer as _};
use super::draft::Draft;
use super::message::Message;
use super::proposal::{Proposal, config_digest};
use super::record::{Ballot, BirthRecord, Commitment, Decision, Promise, Vote};
use super::store::{FILE, PromiseStore, seal};
use super::testing::{certificate, draft, fixed_founders, proposal};
use super::wire::{from_wire, to_wire};

/// The record file: seven magic bytes, the format, the payload, and a checksum of 32 bytes.
fn check_record(name: &str, commitment: Commitment) {
    let record = BirthRecord { epoch: 3, commitment };
    let directory = tempfile::tempdir().unwrap();
    let node = fixed_founders(1)[0].node_id();
    let store = PromiseStore::create(directory.path(), node).unwrap();
    let sample = check(name, &store.encode(&record));
    let payload = &sample[8..sample.len() - 32];
    let extended = seal(sample[7], &with_new_fields_msgpack(payload, &[]));
    for file in [sample, extended] {
        fs::write(directory.path().join(FILE), file).unwrap();
        assert_eq!(store.read().unwrap(), record, "{name}");
    }
}

#[test]
fn records_are_read_as_they_were_and_with_new_fields() {
    let founders = fixed_founders(3);
    let proposal = Arc::new(proposal(&founders));
    let certificate = Arc::new(certificate(&founders));
    let ballot = Ballot { round: 2, by: founders[1].node_id() };
    let promised = |decision: Option<Decision>| {
        let vote = decision.map(|decision| Vote { ballot, decision });
        Commitment::Promised(Promise { proposal: Arc::clone(&proposal), ballot, vote })
    };
    check_record("birth/record-free.hex", Commitment::None);
    check_record("birth/record-promised.hex", promised(None));
    let born = Decision::Born(Arc::clone(&certificate));
    check_record("birth/record-voted-born.hex", promised(Some(born)));
    check_record("birth/record-voted-abandoned.hex", promised(Some(Decision::Abandoned)));
    check_record("birth/record-born.hex", Commitment::Born(certificate));
    check_record("birth/record-joined.hex", Commitment::Joined(ClusterId::from_bytes([4; 32])));
}

fn messages(
    founders: &[Identity],
    certificate: &Arc<Certificate>,
) -> [(&'static str, Message); 11] {
    let proposal = certificate.proposal();
    let id = proposal.id();
    let ballot = Ballot { round: 3, by: founders[1].node_id() };
    let born = Decision::Born(Arc::clone(certificate));
    let vote = Some(Vote { ballot: Ballot { round: 2, ..ballot }, decision: born.clone() });
    let settle = |decision| Message::Settle { proposal: Arc::clone(proposal), ballot, decision };
    let signature = founders[0].sign_promise(&id);
    [
        ("propose", Message::Propose(Arc::clone(proposal))),
        ("promise", Message::Promise { proposal: id, signature }),
        ("refuse", Message::Refuse { proposal: id, reason: "later".to_owned() }),
        ("inquire", Message::Inquire { proposal: Arc::clone(proposal), ballot }),
        ("inquiry-reply", Message::InquiryReply { proposal: id, ballot, vote }),
        ("inquiry-reply-no-vote", Message::InquiryReply { proposal: id, ballot, vote: None }),
        ("settle-born", settle(born)),
        ("settle-abandoned", settle(Decision::Abandoned)),
        ("vote", Message::Vote { proposal: id, ballot }),
        ("born", Message::Born(Arc::clone(certificate))),
        ("abandoned", Message::Abandoned(id)),
    ]
}

/// A length-delimited field with a number below 16.
fn field(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    prost::encode_length_delimiter(value.len(), &mut out).unwrap();
    out.extend_from_slice(value);
    out
}

/// Adds a field to a `BirthMessage` and to the one message in it.
fn extended_message(bytes: &[u8]) -> Vec<u8> {
    let mut inner = &bytes[1..];
    assert_eq!(prost::decode_length_delimiter(&mut inner).unwrap(), inner.len());
    with_new_field_protobuf(&field(bytes[0], &with_new_field_protobuf(inner)))
}

#[test]
fn messages_are_read_as_they_were_and_with_new_fields() {
    let founders = fixed_founders(3);
    let from = founders[0].public_key();
    for (kind, message) in messages(&founders, &Arc::new(certificate(&founders))) {
        let name = format!("birth/message-{kind}.hex");
        let sample = check(&name, &to_wire(&message).encode_to_vec());
        for bytes in [extended_message(&sample), sample] {
            let wire = hello::BirthMessage::decode(bytes.as_slice()).unwrap();
            assert_eq!(from_wire(&from, wire).as_ref(), Ok(&message), "{name}");
        }
    }
}

#[test]
fn a_certificate_is_read_as_it_was_and_with_new_fields() {
    let certificate = certificate(&fixed_founders(3));
    let encoded = hello::BirthCertificate::from(&certificate).encode_to_vec();
    let sample = check("birth/certificate.hex", &encoded);
    for bytes in [with_new_field_protobuf(&sample), sample] {
        let wire = hello::BirthCertificate::decode(bytes.as_slice()).unwrap();
        assert_eq!(Certificate::try_from(wire).as_ref(), Ok(&certificate));
    }
}

/// The hashes too are formats: founders sign the one and compare the other.
#[test]
fn a_proposal_its_id_and_the_digest_of_birth_fields_stay_the_same() {
    let founders = fixed_founders(3);
    let made = proposal(&founders);
    let read = Proposal::decode(check("birth/proposal.hex", made.bytes())).unwrap();
    assert_eq!(Draft::decode(read.bytes()), Ok(draft(&founders)));
    assert_eq!(read, made);
    check("birth/proposal-id.hex", read.id().as_bytes());
    let fields = [("cluster.clusterName", "demo"), ("cluster.expect", "3")];
    let fields = BTreeMap::from(fields.map(|(path, value)| (path.to_owned(), value.to_owned())));
    check("birth/config-digest.hex", &config_digest(&fields));
}

/// A proposal with fields that this version does not know, also in each founder.
fn newer_proposal(founders: &[Identity]) -> Vec<u8> {
    let proposal = proposal(founders);
    let mut wire = hello::Proposal::decode(proposal.bytes()).unwrap();
    let described = std::mem::take(&mut wire.founders);
    let mut bytes = wire.encode_to_vec();
    for founder in described {
        bytes.extend(field(0x12, &with_new_field_protobuf(&founder.encode_to_vec())));
    }
    with_new_field_protobuf(&bytes)
}

#[test]
fn a_proposal_of_a_newer_version_is_signed_stored_and_passed_on_with_all_its_fields() {
    let founders = fixed_founders(3);
    let bytes = newer_proposal(&founders);
    let proposal = Arc::new(Proposal::decode(bytes.clone()).unwrap());
    assert_eq!(Draft::decode(proposal.bytes()), Ok(draft(&founders)), "the same known fields");
    assert_eq!(proposal.bytes(), bytes);
    assert_ne!(proposal.id(), super::testing::proposal(&founders).id(), "the id covers all fields");
    let id = proposal.id();
    let signatures = founders.iter().map(|one| (one.node_id(), one.sign_promise(&id)));
    let certificate = Arc::new(Certificate::new(proposal, signatures.collect()));
    certificate.verify().unwrap();
    for (kind, message) in messages(&founders, &certificate) {
        let wire = to_wire(&message).encode_to_vec();
        let carries = wire.windows(bytes.len()).filter(|window| *window == bytes).count();
        let proposals = match kind {
            "settle-born" => 2,
            "propose" | "inquire" | "inquiry-reply" | "settle-abandoned" | "born" => 1,
            _ => 0,
        };
        assert_eq!(carries, proposals, "{kind}");
        let received = hello::BirthMessage::decode(wire.as_slice()).unwrap();
        let received = from_wire(&founders[0].public_key(), received);
        assert_eq!(received.as_ref(), Ok(&message), "{kind}");
        assert_eq!(to_wire(&received.unwrap()).encode_to_vec(), wire, "{kind}");
    }
    let directory = tempfile::tempdir().unwrap();
    let store = PromiseStore::create(directory.path(), founders[0].node_id()).unwrap();
    let record = BirthRecord { epoch: 0, commitment: Commitment::Born(certificate) };
    store.write(&record).unwrap();
    let read = store.read().unwrap();
    assert_eq!(read.born().unwrap().proposal().bytes(), bytes);
    assert_eq!(read, record);
}
