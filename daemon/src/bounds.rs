//! Tests that each bound has one answer: what the config allows, the birth, the replicated state and
//! the certificates accept, and one more is refused by each.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::SystemTime;

use muster_config::Document;
use muster_formation::birth::{Certificate, Draft, Founder, Proposal};
use muster_messages::hello::{BirthCertificate, Proposal as WireProposal, Signature};
use muster_pki::authority::{Authority, AuthorityKind};
use muster_pki::identity::Identity;
use muster_pki::leaf::{self, KeyPair, Profile};
use muster_state::fixtures::{self, Replica};
use muster_state::{Command, Outcome, command};
use muster_types::limits::{MAX_ADDRESSES, MAX_FOUNDERS, MAX_OPERATORS};
use muster_types::{ClusterId, OperatorRole};
use prost::Message as _;

/// Checks a config with so many founders, operators and addresses of a node.
fn config(founders: usize, operators: usize, addresses: usize) -> Result<(), String> {
    let mut text = String::from("machine:\n  type: control-plane\n  token: t\n");
    text.push_str("  network:\n    addresses: [");
    let listed: Vec<_> = (1..=addresses).map(|n| format!("192.0.2.{n}")).collect();
    writeln!(text, "{}]\ncluster:\n  clusterName: demo", listed.join(", ")).unwrap();
    let names: Vec<_> = (0..founders).map(|n| format!("cp-{n}")).collect();
    writeln!(text, "  expect: {founders}\n  founders: [{}]", names.join(", ")).unwrap();
    writeln!(text, "  operators:").unwrap();
    for n in 0..operators {
        let key = fixtures::key(u8::try_from(n).unwrap());
        writeln!(text, "    - {{name: op-{n}, publicKey: \"{key}\", role: admin}}").unwrap();
    }
    let document = Document::parse(&text, &|_| Ok(())).map_err(|e| e.in_file("node.yaml"))?;
    document.effective(&"cp-0".parse().unwrap()).map_err(|e| e.in_file("node.yaml"))?;
    Ok(())
}

/// The proposal of so many founders with so many addresses each.
fn proposal(founders: usize, addresses: usize) -> Result<(Proposal, Vec<Identity>), String> {
    let mut identities: Vec<_> = (0..founders).map(|_| Identity::generate()).collect();
    identities.sort_by_key(Identity::node_id);
    let listed = |n: usize| SocketAddr::from(([192, 0, 2, u8::try_from(n).unwrap()], 50_000));
    let founder = |(n, identity): (usize, &Identity)| Founder {
        public_key: identity.public_key(),
        name: format!("cp-{n}").parse().unwrap(),
        addresses: (0..addresses).map(listed).collect(),
        epoch: 0,
    };
    let draft = Draft {
        token_id: "abcdefghij".to_owned(),
        founders: identities.iter().enumerate().map(founder).collect(),
        nonce: [7; 32],
        config_digest: [8; 32],
        proposer: identities[0].node_id(),
    };
    let proposal = Proposal::new(draft).map_err(|error| error.to_string())?;
    Ok((proposal, identities))
}

/// A certificate as another node would send it, without valid signatures; returns the refusal.
fn certificate_refusal(founders: usize) -> String {
    let founder = |n: usize| muster_messages::hello::Founder {
        public_key: vec![u8::try_from(n).unwrap(); 32],
        name: format!("cp-{n}"),
        addresses: Vec::new(),
        epoch: 0,
    };
    let signature = |n: usize| Signature {
        node_id: vec![u8::try_from(n).unwrap(); 32],
        signature: vec![0; 64],
    };
    let proposal = WireProposal {
        token_id: "abcdefghij".to_owned(),
        founders: (0..founders).map(founder).collect(),
        nonce: vec![7; 32],
        config_digest: vec![8; 32],
        proposer: vec![0; 32],
    };
    let signatures = (0..founders).map(signature).collect();
    let certificate = BirthCertificate { proposal: proposal.encode_to_vec(), signatures };
    Certificate::try_from(certificate).unwrap_err().to_string()
}

fn founding(change: impl FnOnce(&mut command::FoundCluster), founders: usize) -> bool {
    let mut found = fixtures::found(u8::try_from(founders).unwrap());
    change(&mut found);
    let mut replica = Replica::new();
    matches!(replica.run(Command::FoundCluster(Box::new(found))), Outcome::Done)
}

#[test]
fn a_founder_too_many_is_refused_everywhere() {
    config(MAX_FOUNDERS, 1, 1).unwrap();
    let refused = config(MAX_FOUNDERS + 2, 1, 1).unwrap_err();
    assert!(refused.contains("cluster.expect"), "{refused}");
    let (_, identities) = proposal(MAX_FOUNDERS, 1).unwrap();
    assert_eq!(identities.len(), MAX_FOUNDERS);
    let refused = proposal(MAX_FOUNDERS + 1, 1).unwrap_err();
    assert_eq!(refused, "a birth takes 1 to 7 founders, not 8");
    assert!(!certificate_refusal(MAX_FOUNDERS).contains("founders, not"));
    assert!(certificate_refusal(MAX_FOUNDERS + 1).contains("1 to 7 founders, not 8"));
    assert!(founding(|_| {}, MAX_FOUNDERS) && !founding(|_| {}, MAX_FOUNDERS + 1));
}

#[test]
fn an_operator_too_many_is_refused_everywhere() {
    config(3, MAX_OPERATORS, 1).unwrap();
    let refused = config(3, MAX_OPERATORS + 1, 1).unwrap_err();
    assert!(refused.contains("cluster.operators"), "{refused}");
    let operators = |count: usize| {
        let operator = |n: usize| command::Operator {
            public_key: fixtures::key(u8::try_from(n).unwrap()),
            name: format!("op-{n}"),
            role: OperatorRole::Admin,
        };
        founding(|found| found.operators = (0..count).map(operator).collect(), 3)
    };
    assert!(operators(MAX_OPERATORS) && !operators(MAX_OPERATORS + 1));
}

#[test]
fn an_address_too_many_is_refused_everywhere() {
    config(3, 1, MAX_ADDRESSES).unwrap();
    let refused = config(3, 1, MAX_ADDRESSES + 1).unwrap_err();
    assert!(refused.contains("machine.network.addresses"), "{refused}");
    assert!(proposal(3, MAX_ADDRESSES).is_ok() && proposal(3, MAX_ADDRESSES + 1).is_err());
    let listed: BTreeSet<_> = (0..=MAX_ADDRESSES)
        .map(|n| SocketAddr::from(([192, 0, 2, 1 + u8::try_from(n).unwrap()], 50_000)))
        .collect();
    let listed: Vec<_> = listed.into_iter().collect();
    let found = |count: usize| {
        let addresses = listed[..count].to_vec();
        founding(|found| found.founders[0].addresses = addresses, 3)
    };
    assert!(found(MAX_ADDRESSES) && !found(MAX_ADDRESSES + 1));
    let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let cluster = ClusterId::from_bytes([9; 32]);
    let authority = Authority::create(AuthorityKind::Etcd, "demo", &cluster, now);
    let leaf = |count: usize| {
        let addresses = listed[..count].iter().map(SocketAddr::ip).collect();
        let profile = Profile::EtcdPeer { name: fixtures::name(1), addresses };
        leaf::issue(&authority, &profile, &KeyPair::generate().public(), now).is_ok()
    };
    assert!(leaf(MAX_ADDRESSES) && !leaf(MAX_ADDRESSES + 1));
}
