//! Every call of both protocols from every kind of caller, and members that exceed their limits.
//! The call lists are compared with the .proto files, so that a new call without a row fails here.

use std::sync::Arc;
use std::time::Duration;

use crate::support::node::Node;
use crate::support::{Lab, LabOptions, new_token};
use muster_kit::{bounded, until};
use muster_messages::hello::{
    AnchorRequest, BirthRequest, GreetRequest, JoinRequest, ProveRequest, RenewRequest, join_reply,
};
use muster_messages::node::{
    ForwardRequest, ProposeRequest, RaftMessage, ReadIndexRequest, ReportRequest, SnapshotChunk,
    WatchRequest,
};
use muster_pki::CertificateDer;
use muster_pki::authority::Authority;
use muster_pki::bundle::TrustBundle;
use muster_pki::leaf::{self, Profile};
use muster_pki::tls::Credentials;
use muster_services::hello::hello_client::HelloClient;
use muster_services::node::node_client::NodeClient;
use muster_state::command::{Remove, RevokeToken};
use muster_state::{Actor, Command};
use muster_transport::endpoint::{Peer, Trust};
use muster_transport::hello::HelloSession;
use tonic::{Code, Request};

type Test = anyhow::Result<()>;

/// Calls of `muster.node.v1.Node`, and whether a worker may make them. Only members may make any.
const NODE: &[(&str, bool)] = &[
    ("AppendEntries", false),
    ("RequestVote", false),
    ("InstallSnapshot", false),
    ("Propose", false),
    ("ReadIndex", false),
    ("Report", true),
    ("Watch", true),
    ("Forward", false),
];

/// Calls of `muster.hello.v1.Hello`, and whether they are answered before the proof.
const HELLO: &[(&str, bool)] = &[
    ("Prove", true),
    ("Greet", false),
    ("Birth", false),
    ("Join", false),
    ("Renew", true),
    ("Anchor", false),
];

/// The calls of a .proto file, in order.
fn methods(proto: &str) -> Vec<&str> {
    let calls = proto.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
    calls.filter_map(|line| line.split('(').next()).collect()
}

#[test]
fn every_call_of_the_contract_has_a_row() {
    let names = |table: &[(&'static str, bool)]| -> Vec<_> {
        table.iter().map(|(name, _)| *name).collect()
    };
    let node = include_str!("../../../proto/messages/proto/muster/node/v1/node.proto");
    assert_eq!(methods(node), names(NODE));
    let hello = include_str!("../../../proto/messages/proto/muster/hello/v1/hello.proto");
    assert_eq!(methods(hello), names(HELLO));
}

/// A request with a timeout, so that no call waits indefinitely.
fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(20));
    request
}

/// Makes the call with an empty message.
macro_rules! call_node {
    ($client:expr, $call:expr) => {{
        let client = &mut $client;
        let piece = tokio_stream::once(SnapshotChunk::default());
        let forward =
            ForwardRequest { method: "NodeStatus".to_owned(), ..ForwardRequest::default() };
        let outcome = match $call {
            "AppendEntries" => {
                client.append_entries(within(RaftMessage::default())).await.map(drop)
            }
            "RequestVote" => client.request_vote(within(RaftMessage::default())).await.map(drop),
            "InstallSnapshot" => client.install_snapshot(within(piece)).await.map(drop),
            "Propose" => client.propose(within(ProposeRequest::default())).await.map(drop),
            "ReadIndex" => client.read_index(within(ReadIndexRequest {})).await.map(drop),
            "Report" => client.report(within(ReportRequest::default())).await.map(drop),
            "Watch" => client.watch(within(WatchRequest {})).await.map(drop),
            "Forward" => client.forward(within(forward)).await.map(drop),
            other => panic!("{other} is not called yet"),
        };
        outcome.map_or_else(|status| status.code(), |()| Code::Ok)
    }};
}

macro_rules! call_hello {
    ($client:expr, $call:expr) => {{
        let client = &mut $client;
        let outcome = match $call {
            "Prove" => client.prove(within(ProveRequest::default())).await.map(drop),
            "Greet" => client.greet(within(GreetRequest::default())).await.map(drop),
            "Birth" => client.birth(within(BirthRequest::default())).await.map(drop),
            "Join" => client.join(within(JoinRequest::default())).await.map(drop),
            "Renew" => client.renew(within(RenewRequest {})).await.map(drop),
            "Anchor" => client.anchor(within(AnchorRequest {})).await.map(drop),
            other => panic!("{other} is not called yet"),
        };
        outcome.map_or_else(
            |status| (status.code(), status.message().to_owned()),
            |()| (Code::Ok, String::new()),
        )
    }};
}

/// Three founders, one unknown machine (3), and two workers (4, 5). Genesis is over: every node
/// checks certificates and has one from the cluster's authority.
async fn lab() -> Lab {
    let lab = Lab::founded(LabOptions { spares: 1, workers: 2, ..LabOptions::default() }).await;
    for at in [4, 5] {
        lab.admit(at).await;
    }
    let ours = machine_authority(&lab).await;
    for node in &lab.nodes {
        certify(node, chain(&ours, node), &ours);
    }
    lab
}

async fn machine_authority(lab: &Lab) -> Authority {
    let state = lab.group(0).catch_up().await.unwrap();
    state.authorities().unwrap().machine.clone()
}

/// A node's certificate chain from this authority.
fn chain(authority: &Authority, node: &Node) -> Vec<CertificateDer<'static>> {
    let profile = Profile::Node { id: node.id(), role: node.plan.role };
    let key = node.plan.identity.public_key().into();
    leaf::issue(authority, &profile, &key, musterd::clock::now()).unwrap().chain
}

/// Makes a node present this chain and check others against `trusted`.
fn certify(node: &Node, chain: Vec<CertificateDer<'static>>, trusted: &Authority) {
    let bundle = TrustBundle::new(vec![trusted.certificate().clone()]).unwrap();
    let credentials = Credentials::new(&node.plan.identity, chain, bundle).unwrap();
    node.trust.send_modify(|trust| {
        let directory = trust.directory.clone();
        *trust = Arc::new(Trust { credentials: Some(Arc::new(credentials)), directory });
    });
}

/// Adds another node, with its key and address, to a node's directory.
fn add_peer(node: &Node, target: &Node) {
    let peer = Peer {
        public_key: target.plan.identity.public_key(),
        name: target.plan.name.clone(),
        role: target.plan.role,
        addresses: vec![target.plan.address],
    };
    node.trust.send_modify(|trust| {
        let mut now = (**trust).clone();
        now.directory.insert(target.id(), peer);
        *trust = Arc::new(now);
    });
}

async fn dial(lab: &Lab, from: usize, to: usize) -> anyhow::Result<HelloSession> {
    Ok(lab.nodes[from].endpoint().dial_hello(lab.nodes[to].plan.address).await?)
}

fn is_refusal(code: Code) -> bool {
    matches!(code, Code::PermissionDenied | Code::Unauthenticated)
}

/// The session ended in the handshake. A caller about to use it may see only that it is closed.
fn is_handshake_rejection(code: Code) -> bool {
    matches!(code, Code::Unauthenticated | Code::Unavailable)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_may_make_the_calls_of_its_role_and_no_other() -> Test {
    let lab = lab().await;
    let (door, peer) = (lab.leader().await, lab.others(lab.leader().await)[0]);
    for (call, is_open) in NODE {
        let code = call_node!(lab.nodes[4].client(&lab.nodes[door]), *call);
        if *is_open {
            assert!(!is_refusal(code), "a worker's {call}: {code:?}");
        } else {
            assert_eq!(code, Code::PermissionDenied, "a worker's {call}");
        }
        // A founder's message is empty, so it may be invalid, but the call is allowed.
        let code = call_node!(lab.nodes[peer].client(&lab.nodes[door]), *call);
        assert_ne!(code, Code::PermissionDenied, "a founder's {call}");
        assert_ne!(code, Code::Unimplemented, "a founder's {call}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_members_may_make_calls_of_members() -> Test {
    let lab = lab().await;
    // A former member (5), and a node that never was one (3).
    for at in [3, 5] {
        lab.nodes[0].remove_peer(lab.id(at));
    }
    let guest = dial(&lab, 3, 0).await?;
    guest.prove(&lab.token).await?;
    for (call, _) in NODE {
        // A session without a proof is limited to a few seconds and a few calls.
        let stranger = dial(&lab, 3, 0).await?;
        let code = call_node!(NodeClient::new(stranger.channel()), *call);
        assert_eq!(code, Code::PermissionDenied, "a stranger's {call}");
        let code = call_node!(NodeClient::new(guest.channel()), *call);
        assert_eq!(code, Code::Unimplemented, "a guest's {call} on muster-hello/1");
        for at in [3, 5] {
            let code = call_node!(lab.nodes[at].client(&lab.nodes[0]), *call);
            assert!(
                is_handshake_rejection(code),
                "{call} of node {at}, which is no member: {code:?}"
            );
        }
    }
    Ok(())
}

/// Waits until the node rejects this caller with its own message.
async fn until_refused_by(target: &Node, caller: &Node) {
    until("the node's refusal", async || {
        let status = caller.client(target).report(within(ReportRequest::default())).await;
        let status = status.expect_err("the call succeeded");
        let is_refused = status.code() == Code::Unauthenticated;
        (is_refused && status.message().contains("the peer rejected this node")).then_some(())
    })
    .await;
}

/// Callers: a member of another cluster, and a registered key with a certificate from a foreign
/// authority. Both trust the authority of the node that they dial, so it is the node that rejects
/// them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_a_foreign_authority_is_rejected() -> Test {
    let lab = lab().await;
    let other = Lab::founded(LabOptions { founders: 1, ..LabOptions::default() }).await;
    let (ours, foreign) = (machine_authority(&lab).await, machine_authority(&other).await);
    let (door, known, stranger) = (&lab.nodes[0], &lab.nodes[3], &other.nodes[0]);
    add_peer(stranger, door);
    for caller in [known, stranger] {
        certify(caller, chain(&foreign, caller), &ours);
        until_refused_by(door, caller).await;
        for (call, _) in NODE {
            let code = call_node!(caller.client(door), *call);
            assert!(is_handshake_rejection(code), "{call} of {}: {code:?}", caller.plan.name);
        }
    }
    certify(known, chain(&ours, known), &ours);
    for (call, _) in NODE {
        let code = call_node!(known.client(door), *call);
        let is_heard = !is_refusal(code) && code != Code::Unavailable;
        assert!(is_heard, "{call} with a certificate of ours: {code:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_may_prove_and_renew_and_hello_is_not_served_on_muster_node() -> Test {
    let lab = lab().await;
    let denied = (Code::PermissionDenied, String::new());
    for (call, is_open) in HELLO {
        let session = dial(&lab, 3, 0).await?;
        let answer = call_hello!(session.client(), *call);
        match *call {
            "Renew" => assert_eq!(answer.0, Code::Ok, "the reply says that it is no member"),
            // The message is empty, so its proof is wrong.
            _ => assert_eq!(answer, denied, "a stranger's {call} (open: {is_open})"),
        }
        let proven = dial(&lab, 3, 0).await?;
        proven.prove(&lab.token).await?;
        let (code, _) = call_hello!(proven.client(), *call);
        assert_eq!(code == Code::PermissionDenied, *call == "Prove", "a guest's {call}");
        let channel = lab.nodes[1].endpoint().channel(lab.id(0));
        let (code, _) = call_hello!(HelloClient::new(channel), *call);
        assert_eq!(code, Code::Unimplemented, "a member's {call} on muster-node/1");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_with_the_token_that_opened_it() -> Test {
    let lab = lab().await;
    let denied = (Code::PermissionDenied, String::new());
    let revoked: Vec<&str> = HELLO
        .iter()
        .map(|(call, _)| *call)
        .filter(|call| !matches!(*call, "Prove" | "Renew"))
        .collect();
    let mut guests = Vec::new();
    for call in revoked {
        let session = dial(&lab, 3, 0).await?;
        session.prove(&lab.token).await?;
        guests.push((call, session));
    }
    let revoke = RevokeToken { token: lab.token.id().clone(), by: Actor::Cluster };
    lab.group(0).propose(Command::RevokeToken(revoke)).await?.into_result()?;
    lab.group(0).catch_up().await?;
    for (call, session) in guests {
        let answer = call_hello!(session.client(), call);
        assert_eq!(answer, denied, "{call} with a token that was revoked after it was proved");
        until("the session is closed", async || session.is_closed().then_some(())).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_up_token_keeps_its_last_session() -> Test {
    let lab = Lab::founded(LabOptions { workers: 1, ..LabOptions::default() }).await;
    let (token, create) = new_token(&[muster_types::Role::Worker], None);
    let Command::CreateToken(mut create) = create else { unreachable!() };
    create.grant.uses_allowed = Some(1);
    lab.group(0).propose(Command::CreateToken(create)).await?.into_result()?;
    lab.group(0).catch_up().await?;
    let session = dial(&lab, 3, 0).await?;
    session.prove(&token).await?;
    let me = muster_messages::hello::Candidate {
        name: "n4".to_owned(),
        role: muster_messages::hello::NodeRole::Worker.into(),
        addresses: vec![lab.nodes[3].plan.address.to_string()],
        version: "0.1.0".to_owned(),
        ..Default::default()
    };
    // The first reply may be lost.
    for _ in 0..2 {
        let reply =
            session.client().join(JoinRequest { candidate: Some(me.clone()) }).await?.into_inner();
        let is_admitted = matches!(reply.outcome, Some(join_reply::Outcome::Admitted(_)));
        assert!(is_admitted, "{reply:?}");
    }
    let again = dial(&lab, 3, 0).await?.prove(&token).await;
    assert!(again.is_err(), "it opens no new session");
    let remove = Remove { node: lab.id(3), by: Actor::Cluster, force: false };
    lab.group(0).propose(Command::Remove(remove)).await?.into_result()?;
    bounded("the group continues", lab.group(0).catch_up()).await?;
    Ok(())
}

/// A command too large for the log would stop the leader that appends it, and then its successor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_too_large_for_the_log_is_refused_and_stops_no_leader() -> Test {
    let lab = Lab::founded(LabOptions::default()).await;
    let leader = lab.leader().await;
    let follower = lab.others(leader)[0];
    let (_, create) = new_token(&[muster_types::Role::Worker], None);
    let Command::CreateToken(mut create) = create else { unreachable!() };
    create.grant.description = "x".repeat(2 << 20);
    let command = Command::CreateToken(create);
    for at in [leader, follower] {
        let outcome = lab.group(at).propose(command.clone()).await?;
        let refusal = outcome.into_result().unwrap_err();
        assert!(refusal.message.contains("larger than"), "{refusal}");
    }
    // A modified member skips the check on its side.
    let mut client = lab.nodes[follower].client(&lab.nodes[leader]);
    let request = ProposeRequest { command: musterd::raft::codec::encode(&command) };
    client.propose(request).await?;
    for (number, at) in [0, 1, 2].into_iter().enumerate() {
        lab.group(at).propose(lab.numbered_write(number as u64)).await?.into_result()?;
    }
    assert_eq!(lab.leader().await, leader, "the leader changed");
    lab.assert_equal(&[0, 1, 2]).await;
    Ok(())
}

/// A compromised worker must not fill the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_reports_changes_endlessly_is_rate_limited() -> Test {
    let lab = lab().await;
    let leader = lab.leader().await;
    let mut client = lab.nodes[4].client(&lab.nodes[leader]);
    let before = lab.group(leader).catch_up().await?.index().0;
    let (mut taken, begun) = (0, std::time::Instant::now());
    for number in 0..200 {
        let report = ReportRequest {
            addresses: vec!["127.98.0.1:50000".to_owned()],
            version: format!("0.0.{number}"),
            etcd: Vec::new(),
        };
        match client.report(within(report)).await {
            Ok(_) => taken += 1,
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status}"),
        }
    }
    let allowed = 10 + begun.elapsed().as_secs() / 2 + 1;
    assert!(taken >= 10 && taken <= allowed, "{taken} of 200 reports in {:?}", begun.elapsed());
    let written = lab.group(leader).catch_up().await?.index().0 - before;
    // A new leader writes an entry of its own.
    assert!(written <= taken + 3, "{written} entries for {taken} reports");
    let mut other = lab.nodes[5].client(&lab.nodes[leader]);
    other.report(within(ReportRequest::default())).await.expect("another worker can report");
    Ok(())
}

/// Streams are limited because each one builds a new view for every change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_may_watch_a_few_times_and_again_when_it_has_let_go() -> Test {
    let lab = lab().await;
    lab.group(0).catch_up().await?;
    let mut client = lab.nodes[4].client(&lab.nodes[0]);
    let mut held = Vec::new();
    let refused = loop {
        match client.watch(WatchRequest {}).await {
            Ok(views) => held.push(views.into_inner()),
            Err(status) => break status,
        }
        assert!(held.len() < 50, "streams are not limited");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let mut other = lab.nodes[5].client(&lab.nodes[0]);
    let view = other.watch(WatchRequest {}).await?.into_inner().message().await?;
    assert!(view.is_some(), "another worker sees the cluster");
    drop(held);
    until("a free stream", async || client.watch(WatchRequest {}).await.ok()).await;
    Ok(())
}
