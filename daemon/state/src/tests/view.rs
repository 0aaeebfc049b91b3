use muster_messages::hello::NodeRole;
use muster_messages::operator::member::State;
use muster_messages::operator::token;
use std::time::Duration;

use muster_messages::hello::refusal::Reason as WireReason;
use muster_types::etcd::EtcdGeneration;
use muster_types::{DurationMillis, Role};

use super::*;
use crate::command::{RecordAudit, RevokeToken};
use crate::view::{self, LiveStatus, PeerLiveness};
use crate::{ClusterState, EtcdChange};

fn four_nodes() -> Replica {
    let mut replica = Replica::founded(3);
    replica.done(install(0, 1));
    replica.done(Command::Admit(admit(4, Role::Worker)));
    replica
}

#[test]
fn the_view_of_members_holds_what_they_need_and_no_secret() {
    let mut replica = four_nodes();
    replica.done(create("tokenaaaaa", grant(&[Role::Worker])));
    replica.done(remove(3));
    let view = view::cluster_view(&replica.state);
    assert_eq!(view.index, replica.index.0);
    assert_eq!(view.cluster_name, "demo");
    assert_eq!(view.cluster_id, vec![9; 32]);
    assert_eq!(view.config_version, 1);
    let mut names: Vec<_> = view.members.iter().map(|m| (m.name.as_str(), m.role())).collect();
    names.sort_unstable();
    let control_plane = NodeRole::ControlPlane;
    let expected =
        [("node-1", control_plane), ("node-2", control_plane), ("node-4", NodeRole::Worker)];
    assert_eq!(names, expected);
    assert_eq!(view.removed, [id(3).to_vec()]);
    assert_eq!(view.token_ids, ["foundingaa", "tokenaaaaa"]);
    let machine = &replica.state.authorities().unwrap().machine;
    assert_eq!(view.machine_authorities, [machine.certificate().to_vec()]);
    let bytes = prost::Message::encode_to_vec(&view);
    for secret in [[1_u8; 64], [2; 64]] {
        assert!(!bytes.windows(64).any(|w| w == secret), "a verifier is in the view");
    }
}

#[test]
fn the_view_before_founding_is_empty() {
    assert_eq!(view::cluster_view(&ClusterState::default()), <_>::default());
}

#[test]
fn the_view_names_the_latest_removed_nodes_and_only_valid_tokens() {
    let mut replica = four_nodes();
    let by = by(ADMIN);
    replica.done(Command::RevokeToken(RevokeToken { token: founding_token(), by }));
    replica.done(remove(4));
    replica.done(remove(2));
    let view = view::cluster_view(&replica.state);
    assert_eq!(view.removed, [id(2).to_vec(), id(4).to_vec()]);
    assert!(view.token_ids.is_empty());
}

#[test]
fn members_are_listed_by_name_with_what_gossip_and_raft_say() {
    let mut replica = four_nodes();
    replica.done(Command::Etcd(EtcdChange::Started {
        node: id(1),
        generation: EtcdGeneration::FIRST,
        member_id: etcd_id(1),
    }));
    replica.done(Command::Admit(admit(5, Role::ControlPlane)));
    let mut live = LiveStatus { me: id(1), leader: Some(id(2)), ..LiveStatus::default() };
    live.voters = [id(1), id(2), id(3)].into();
    live.liveness.insert(
        id(4),
        PeerLiveness { state: State::Down, silent_for: Some(Duration::from_secs(9)) },
    );
    let reply = view::members(&replica.state, &live);
    let row = |m: &muster_messages::operator::Member| {
        let words = [
            m.name.clone(),
            m.role().word(),
            m.state().word(),
            m.raft_role().word(),
            m.etcd().word(),
        ];
        let seen = m.last_seen_ms.map_or_else(|| "never".to_owned(), |ms| ms.to_string());
        format!("{} {seen}", words.join(" "))
    };
    let rows: Vec<_> = reply.members.iter().map(row).collect();
    assert_eq!(
        rows,
        [
            "node-1 control-plane alive follower voter 0",
            "node-2 control-plane unknown leader waiting never",
            "node-3 control-plane unknown follower waiting never",
            "node-4 worker down   9000",
            "node-5 control-plane unknown learner waiting never",
        ]
    );
    assert_eq!(reply.members[0].address, "10.0.0.1:50000");
    assert_eq!(reply.members[0].id, id(1).to_string());
    assert_eq!((reply.leader.as_str(), reply.stale, reply.stale_for_ms), ("node-2", false, 0));
    live.leader = None;
    live.stale_for = Some(Duration::from_millis(1_500));
    let reply = view::members(&replica.state, &live);
    assert_eq!((reply.leader.as_str(), reply.stale, reply.stale_for_ms), ("", true, 1_500));
}

#[test]
fn tokens_are_listed_without_their_verifiers() {
    let mut replica = four_nodes();
    let mut limited = grant(&[Role::ControlPlane, Role::Worker]);
    limited.ttl = Some(DurationMillis::from_millis(1_000));
    limited.uses_allowed = Some(2);
    limited.node_name = Some(name(8));
    limited.description = "for the lab".to_owned();
    replica.done(create("aaaaaaaaaa", limited));
    let now = replica.now.as_millis();
    let reply = view::tokens(&replica.state, replica.now);
    let [founding, limited] = reply.tokens.as_slice() else { panic!("two tokens") };
    assert_eq!((founding.id.as_str(), founding.founding, founding.uses), ("foundingaa", true, 1));
    assert_eq!((founding.expires_ms, founding.uses_allowed), (0, 0));
    assert_eq!(limited.roles, [NodeRole::ControlPlane, NodeRole::Worker].map(i32::from));
    assert_eq!((limited.expires_ms, limited.uses_allowed), (now + 1_000, 2));
    assert_eq!((limited.node_name.as_str(), limited.state()), ("node-8", token::State::Valid));
    assert_eq!((limited.created_by.as_str(), limited.created_ms), ("admin", now));
    let later = view::tokens(&replica.state, replica.now.saturating_add(Duration::from_secs(1)));
    assert_eq!(later.tokens[1].state(), token::State::Expired);
}

#[test]
fn the_newest_audit_entries_are_listed_oldest_first() {
    let replica = four_nodes();
    let all = view::audit(&replica.state, 0).entries;
    let actions: Vec<_> = all.iter().map(|e| e.action.as_str()).collect();
    assert_eq!(actions, ["found-cluster", "install-authorities", "admit"]);
    assert_eq!(view::audit(&replica.state, 2).entries, all[1..]);
    assert_eq!(view::audit(&replica.state, 99).entries, all);
}

#[test]
fn authorities_are_listed_with_their_certificates_only() {
    let replica = four_nodes();
    let reply = view::authorities(&replica.state);
    let names: Vec<_> = reply.authorities.iter().map(|a| a.kind().word()).collect();
    assert_eq!(names, ["machine", "etcd", "kubernetes", "front-proxy"]);
    for authority in &reply.authorities {
        assert!((authority.not_before_ms..authority.not_after_ms).contains(&START.as_millis()));
        assert_eq!(authority.fingerprint.len(), 64);
        assert!(authority.certificate_pem.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(!authority.certificate_pem.contains("PRIVATE"));
    }
    assert_eq!(reply.service_account_key.len(), 64);
    assert_eq!(view::authorities(&ClusterState::default()), <_>::default());
}

#[test]
fn a_joining_node_hears_the_kind_of_refusal() {
    let reasons = [
        (RefusalKind::NotFounded, WireReason::NotNow),
        (RefusalKind::NotNow, WireReason::NotNow),
        (RefusalKind::Full, WireReason::NotNow),
        (RefusalKind::NameTaken, WireReason::NameTaken),
        (RefusalKind::Removed, WireReason::Removed),
        (RefusalKind::Token, WireReason::Token),
        (RefusalKind::NotAMember, WireReason::NotAMember),
        (RefusalKind::Invalid, WireReason::Invalid),
    ];
    for (reason, expected) in reasons {
        let message = view::refusal(&refusal(reason, "why"));
        assert_eq!((message.reason(), message.message.as_str()), (expected, "why"));
    }
}

/// Size of a snapshot: the whole state is one message, so it must stay small.
#[test]
fn a_thousand_members_and_a_full_audit_log_fit_into_a_megabyte() {
    let mut replica = four_nodes();
    for number in 0..1_000_u16 {
        let mut admission = admit(5, Role::Worker);
        let digest = ring::digest::digest(&ring::digest::SHA256, &number.to_be_bytes());
        admission.public_key = digest.as_ref().try_into().unwrap();
        admission.name = format!("worker-{number}").parse().unwrap();
        replica.done(Command::Admit(admission));
    }
    for number in 0..2_000 {
        replica.done(Command::RecordAudit(RecordAudit {
            by: id(1),
            action: "refuse-join".to_owned(),
            subject: format!("10.0.0.9 attempt {number}"),
            outcome: "x".repeat(120),
        }));
    }
    let bytes = rmp_serde::to_vec_named(&replica.state).unwrap();
    assert!(bytes.len() < 1 << 20, "{} bytes", bytes.len());
    assert_eq!(replica.restored(), replica.state);
}
