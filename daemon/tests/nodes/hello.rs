//! The hello service of a formed cluster: join and renew.

use std::sync::Arc;

use crate::support::{Lab, LabOptions, new_token};
use muster_messages::hello::refusal::Reason;
use muster_messages::hello::{Candidate, JoinRequest, RenewRequest, join_reply, renew_reply};
use muster_pki::token::Token;
use muster_state::command::{Remove, RevokeToken};
use muster_state::{Actor, Command, view};
use muster_transport::endpoint::Trust;
use muster_transport::hello::{HelloHandler as _, HelloSession, ProveError};
use muster_types::Role;

type Test = anyhow::Result<()>;

/// Three founders, one more control-plane machine (3) and two workers (4, 5), unknown to the
/// cluster.
async fn lab() -> Lab {
    Lab::founded(LabOptions { spares: 1, workers: 2, ..LabOptions::default() }).await
}

async fn dial(lab: &Lab, from: usize, to: usize) -> anyhow::Result<HelloSession> {
    Ok(lab.nodes[from].endpoint().dial_hello(lab.nodes[to].plan.address).await?)
}

fn me(lab: &Lab, at: usize, name: &str, role: Role) -> JoinRequest {
    JoinRequest {
        candidate: Some(Candidate {
            name: name.to_owned(),
            role: muster_messages::hello::NodeRole::from(role).into(),
            addresses: vec![lab.nodes[at].plan.address.to_string()],
            version: "0.1.0".to_owned(),
            ..Candidate::default()
        }),
    }
}

/// Joins through a founder that does not lead.
async fn join(
    lab: &Lab,
    at: usize,
    token: &Token,
    request: JoinRequest,
) -> anyhow::Result<join_reply::Outcome> {
    let door = lab.others(lab.leader().await)[0];
    lab.group(door).catch_up().await?;
    let session = dial(lab, at, door).await?;
    session.prove(token).await?;
    Ok(session.client().join(request).await?.into_inner().outcome.unwrap())
}

fn reason(outcome: join_reply::Outcome) -> Reason {
    match outcome {
        join_reply::Outcome::Refused(refusal) => refusal.reason(),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_founding_token_admits_either_role_and_again_without_harm() -> Test {
    let lab = lab().await;
    for (at, role) in [(3, Role::ControlPlane), (4, Role::Worker), (4, Role::Worker)] {
        let request = me(&lab, at, lab.nodes[at].plan.name.as_str(), role);
        let outcome = join(&lab, at, &lab.token, request).await?;
        let join_reply::Outcome::Admitted(admitted) = outcome else { panic!("{outcome:?}") };
        assert_eq!(admitted.cluster_id, lab.cluster.to_vec());
        assert!(admitted.peers.len() >= 4 && admitted.credentials.is_some());
    }
    let state = lab.group(0).catch_up().await?;
    assert_eq!(state.members().count(), 5);
    assert_eq!(state.token(lab.token.id()).unwrap().uses, 2, "once for each node");
    Ok(())
}

/// An old image of a founder's disk was restored: it had the key, but neither the cluster nor the
/// votes. The node was admitted "again" and voted with an empty log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_asks_to_join_has_forgotten_its_votes_and_is_refused() -> Test {
    let lab = lab().await;
    let voter = lab.leader().await;
    let name = lab.nodes[voter].plan.name.to_string();
    let request = me(&lab, voter, &name, Role::ControlPlane);
    let outcome = join(&lab, voter, &lab.token, request).await?;
    let join_reply::Outcome::Refused(refusal) = &outcome else { panic!("{outcome:?}") };
    assert!(refusal.message.contains(&format!("musterctl node remove {name}")), "{refusal:?}");
    assert_eq!(reason(outcome), Reason::Invalid);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_is_refused_for_its_token_its_name_or_its_past() -> Test {
    let lab = lab().await;
    let (workers_only, create) = new_token(&[Role::Worker], Some("n5"));
    lab.group(0).propose(create).await?.into_result()?;
    let as_control_plane = join(&lab, 3, &workers_only, me(&lab, 3, "n5", Role::ControlPlane));
    assert_eq!(reason(as_control_plane.await?), Reason::Token, "the role");
    let as_another = join(&lab, 4, &workers_only, me(&lab, 4, "other", Role::Worker));
    assert_eq!(reason(as_another.await?), Reason::Token, "the name of the token");
    let taken = join(&lab, 4, &lab.token, me(&lab, 4, "n1", Role::Worker));
    assert_eq!(reason(taken.await?), Reason::NameTaken);
    let nameless = join(&lab, 4, &lab.token, me(&lab, 4, "Not A Name", Role::Worker)).await;
    assert!(nameless.unwrap_err().to_string().contains("not a node name"));

    let good = join(&lab, 4, &workers_only, me(&lab, 4, "n5", Role::Worker)).await?;
    assert!(matches!(good, join_reply::Outcome::Admitted(_)));
    let remove = Remove { node: lab.id(4), by: Actor::Cluster, force: false };
    lab.group(0).propose(Command::Remove(remove)).await?.into_result()?;
    let back = join(&lab, 4, &lab.token, me(&lab, 4, "n5", Role::Worker)).await?;
    assert_eq!(reason(back), Reason::Removed);
    Ok(())
}

/// A refused machine retries indefinitely; the Raft log and the audit log must not grow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_join_that_is_tried_again_and_again_is_written_down_once() -> Test {
    let lab = lab().await;
    let refuse = async || {
        let taken = join(&lab, 4, &lab.token, me(&lab, 4, "n1", Role::Worker));
        assert_eq!(reason(taken.await.unwrap()), Reason::NameTaken);
    };
    refuse().await;
    let after_one = lab.group(0).catch_up().await?;
    for _ in 0..5 {
        refuse().await;
    }
    let after_all = lab.group(0).catch_up().await?;
    assert_eq!(after_one.audit().len(), after_all.audit().len());
    assert_eq!(after_one.index(), after_all.index(), "nothing was written");
    let refusals = after_all.audit().filter(|e| e.action == "admit" && e.outcome != "ok");
    assert_eq!(refusals.count(), 1);
    for number in 0..20 {
        let (token, create) = new_token(&[Role::ControlPlane], None);
        lab.group(0).propose(create).await?;
        let refused = join(&lab, 5, &token, me(&lab, 5, &format!("w{number}"), Role::Worker));
        assert_eq!(reason(refused.await?), Reason::Token);
    }
    let state = lab.group(0).catch_up().await?;
    let refusals = state.audit().filter(|e| e.action == "admit" && e.outcome != "ok").count();
    assert!((2..=12).contains(&refusals), "{refusals} refusals of a flood were recorded");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_is_rejected_also_by_a_worker() -> Test {
    let lab = lab().await;
    for at in 3..6 {
        lab.admit(at).await;
    }
    let tell = async || {
        let state = lab.group(0).catch_up().await.unwrap();
        lab.nodes[4].status.set_cluster_view(Arc::new(view::cluster_view(&state)));
    };
    let worker = lab.nodes[4].hello();
    assert!(worker.verifier(lab.token.id()).await.is_none(), "it has received no view yet");
    tell().await;
    assert!(worker.verifier(lab.token.id()).await.is_some());
    let session = dial(&lab, 5, 4).await?;
    session.prove(&lab.token).await?;
    let outcome = session.client().join(me(&lab, 5, "n6", Role::Worker)).await?.into_inner();
    let Some(join_reply::Outcome::Redirect(redirect)) = outcome.outcome else {
        panic!("a worker admitted a node: {outcome:?}")
    };
    assert_eq!(redirect.peers.len(), 4, "the control plane");

    let revoke = RevokeToken { token: lab.token.id().clone(), by: Actor::Cluster };
    lab.group(0).propose(Command::RevokeToken(revoke)).await?.into_result()?;
    tell().await;
    for at in 0..3 {
        lab.group(at).catch_up().await?;
        assert!(lab.nodes[at].hello().verifier(lab.token.id()).await.is_none(), "founder {at}");
    }
    assert!(worker.verifier(lab.token.id()).await.is_none());
    for door in [0, 4] {
        let refused = dial(&lab, 5, door).await?.prove(&lab.token).await;
        assert!(matches!(refused, Err(ProveError::Rejected { .. })), "{refused:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewal_is_for_members_reports_removal_and_reveals_nothing_to_strangers() -> Test {
    let lab = lab().await;
    lab.admit(4).await;
    let renew = async |at: usize, door: usize| -> anyhow::Result<renew_reply::Outcome> {
        let session = dial(&lab, at, door).await?;
        Ok(session.client().renew(RenewRequest {}).await?.into_inner().outcome.unwrap())
    };
    for at in 0..3 {
        lab.group(at).catch_up().await?;
    }
    let renewed = renew(4, 0).await?;
    assert!(matches!(renewed, renew_reply::Outcome::Renewed(_)), "{renewed:?}");
    let stranger = renew(5, 0).await?;
    let renew_reply::Outcome::Refused(refusal) = stranger else { panic!("{stranger:?}") };
    assert_eq!((refusal.reason(), refusal.message.as_str()), (Reason::NotAMember, ""));

    let remove = Remove { node: lab.id(4), by: Actor::Cluster, force: false };
    lab.group(0).propose(Command::Remove(remove)).await?.into_result()?;
    for at in 0..3 {
        lab.group(at).catch_up().await?;
        let removed = renew(4, at).await?;
        let renew_reply::Outcome::Refused(refusal) = removed else { panic!("{removed:?}") };
        assert_eq!(refusal.reason(), Reason::Removed, "founder {at}");
    }
    let from_worker = renew(5, 4).await?;
    let renew_reply::Outcome::Refused(refusal) = from_worker else { panic!("{from_worker:?}") };
    assert_eq!(refusal.reason(), Reason::NotNow, "a worker renews no certificate");
    lab.nodes[4].status.set_removed();
    lab.nodes[4].trust.send_replace(Arc::new(Trust::default()));
    assert!(lab.nodes[4].hello().verifier(lab.token.id()).await.is_none(), "a removed node");
    Ok(())
}
