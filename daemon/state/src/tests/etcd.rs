use muster_types::etcd::{DataState, EtcdGeneration, EtcdPeer, InitialClusterState};
use muster_types::{NodeId, Role};

use super::*;
use crate::EtcdChange;
use crate::etcd::{Assignment, EtcdMemberPhase, EtcdReport};

const FIRST: EtcdGeneration = EtcdGeneration::FIRST;
const SECOND: EtcdGeneration = EtcdGeneration(1);

fn peer(number: u8) -> EtcdPeer {
    EtcdPeer { name: name(number), url: format!("https://10.0.0.{number}:2380") }
}

fn started(number: u8) -> Command {
    let member_id = etcd_id(number.into());
    Command::Etcd(EtcdChange::Started { node: id(number), generation: FIRST, member_id })
}

fn added(number: u8, generation: EtcdGeneration, member_id: u64) -> Command {
    let member_id = etcd_id(member_id);
    let peer_url = peer(number).url;
    Command::Etcd(EtcdChange::Added { node: id(number), generation, member_id, peer_url })
}

fn promoted(number: u8, generation: EtcdGeneration, member_id: u64) -> Command {
    let member_id = etcd_id(member_id);
    Command::Etcd(EtcdChange::Promoted { node: id(number), generation, member_id })
}

fn lost(number: u8, generation: EtcdGeneration) -> Command {
    let mut report = report(number);
    let (data, version) = (DataState::Lost, String::new());
    report.etcd = Some(EtcdReport { generation, data, version });
    Command::Report(report)
}

fn removed(number: u8, generation: EtcdGeneration) -> Command {
    Command::Etcd(EtcdChange::Removed { node: id(number), generation })
}

fn record(replica: &Replica, node: NodeId) -> (EtcdMemberPhase, EtcdGeneration) {
    let record = replica.state.etcd().node(&node).unwrap();
    (record.phase, record.generation)
}

fn three_voters_and_a_fourth() -> Replica {
    let mut replica = Replica::founded(3);
    for number in 1..=3 {
        replica.done(started(number));
    }
    replica.done(Command::Admit(admit(4, Role::ControlPlane)));
    replica
}

#[test]
fn founders_start_together_from_one_list() {
    let replica = Replica::founded(3);
    for number in 1..=3 {
        assert_eq!(
            replica.state.etcd().assignment(&id(number)),
            Assignment::Run {
                generation: FIRST,
                initial_state: InitialClusterState::New,
                initial_cluster: vec![peer(1), peer(2), peer(3)],
            }
        );
    }
}

#[test]
fn a_founder_starts_with_the_first_list_also_after_it_was_seen_as_a_voter() {
    let mut replica = three_voters_and_a_fourth();
    let before = replica.state.etcd().assignment(&id(3));
    replica.done(added(4, FIRST, 40));
    assert_eq!(replica.state.etcd().assignment(&id(3)), before);
    assert_eq!(replica.state.etcd().founders(), [peer(1), peer(2), peer(3)]);
}

#[test]
fn a_later_node_waits_then_learns_then_votes() {
    let mut replica = three_voters_and_a_fourth();
    assert_eq!(
        replica.state.etcd().assignment(&id(4)),
        Assignment::Wait { generation: FIRST, reason: "the leader to add it to etcd" }
    );
    replica.done(added(4, FIRST, 40));
    let run = Assignment::Run {
        generation: FIRST,
        initial_state: InitialClusterState::Existing,
        initial_cluster: vec![peer(1), peer(2), peer(3), peer(4)],
    };
    assert_eq!(replica.state.etcd().assignment(&id(4)), run);
    assert_eq!(replica.state.etcd().learner(), Some(&id(4)));
    replica.done(promoted(4, FIRST, 40));
    assert_eq!(record(&replica, id(4)), (EtcdMemberPhase::Voter { member_id: etcd_id(40) }, FIRST));
    assert_eq!(replica.state.etcd().assignment(&id(4)), run);
}

#[test]
fn a_worker_has_no_etcd() {
    let mut replica = Replica::founded(3);
    replica.done(Command::Admit(admit(4, Role::Worker)));
    assert_eq!(replica.state.etcd().assignment(&id(4)), Assignment::Nothing);
    assert_eq!(
        replica.refused(added(4, FIRST, 40)),
        refusal(
            RefusalKind::Stale,
            &format!(
                "etcd of node {} (generation 0) cannot be recorded as added: no control-plane \
                 member has this id; reread the plan",
                id(4).short()
            )
        )
    );
}

#[test]
fn a_lost_member_begins_again_with_the_next_generation() {
    let mut replica = three_voters_and_a_fourth();
    replica.done(lost(2, FIRST));
    assert_eq!(
        record(&replica, id(2)),
        (EtcdMemberPhase::Lost { member_id: Some(etcd_id(2)) }, FIRST)
    );
    assert_eq!(
        replica.state.etcd().assignment(&id(2)),
        Assignment::Wait { generation: FIRST, reason: "the leader to remove its lost etcd member" }
    );
    replica.done(removed(2, FIRST));
    assert_eq!(record(&replica, id(2)), (EtcdMemberPhase::Waiting, SECOND));
    replica.done(added(2, SECOND, 22));
    let Assignment::Run { generation, initial_state, .. } = replica.state.etcd().assignment(&id(2))
    else {
        panic!("a learner runs");
    };
    assert_eq!((generation, initial_state), (SECOND, InitialClusterState::Existing));
    replica.done(promoted(2, SECOND, 22));
    assert_eq!(
        record(&replica, id(2)),
        (EtcdMemberPhase::Voter { member_id: etcd_id(22) }, SECOND)
    );
}

#[test]
fn every_transition_twice_is_harmless() {
    let mut replica = Replica::founded(3);
    let mut twice = |command: Command| {
        assert_eq!(replica.run(command.clone()), Outcome::Done, "{command:?}");
        let etcd = replica.state.etcd().clone();
        assert_eq!(replica.run(command.clone()), Outcome::Unchanged, "{command:?}");
        assert_eq!(*replica.state.etcd(), etcd);
    };
    twice(started(1));
    twice(lost(1, FIRST));
    twice(removed(1, FIRST));
    twice(added(1, SECOND, 11));
    twice(Command::Etcd(EtcdChange::PeerUrlChanged {
        node: id(1),
        generation: SECOND,
        peer_url: "https://10.0.0.99:2380".to_owned(),
    }));
    twice(promoted(1, SECOND, 11));
}

#[test]
fn a_late_transition_is_refused_and_changes_nothing() {
    let mut replica = three_voters_and_a_fourth();
    let stale = |replica: &mut Replica, command, number, what: &str, why: &str| {
        let etcd = replica.state.etcd().clone();
        let expected =
            format!("etcd of node {} {what}: {why}; reread the plan", id(number).short());
        assert_eq!(replica.refused(command), refusal(RefusalKind::Stale, &expected));
        assert_eq!(*replica.state.etcd(), etcd);
    };
    stale(
        &mut replica,
        promoted(4, FIRST, 40),
        4,
        "(generation 0) cannot be recorded as promoted",
        "its phase is waiting",
    );
    stale(
        &mut replica,
        added(4, FIRST, 3),
        4,
        "(generation 0) cannot be recorded as added",
        "another node has this etcd member",
    );
    stale(
        &mut replica,
        removed(1, EtcdGeneration(7)),
        1,
        "(generation 7) cannot be recorded as removed",
        "its etcd has another generation",
    );
    replica.done(added(4, FIRST, 40));
    replica.done(Command::Admit(admit(5, Role::ControlPlane)));
    stale(
        &mut replica,
        added(5, FIRST, 50),
        5,
        "(generation 0) cannot be recorded as added",
        "another node is the learner",
    );
    stale(
        &mut replica,
        promoted(4, FIRST, 41),
        4,
        "(generation 0) cannot be recorded as promoted",
        "its phase is learner",
    );
}

#[test]
fn a_removed_node_leaves_its_etcd_member_to_be_removed() {
    let mut replica = three_voters_and_a_fourth();
    replica.done(remove(3));
    let removals: Vec<_> = replica.state.etcd().leftover_members().collect();
    assert_eq!(
        (removals.len(), removals[0].0, removals[0].1.member_id),
        (1, &id(3), Some(etcd_id(3)))
    );
    assert_eq!(replica.state.etcd().assignment(&id(3)), Assignment::Nothing);
    assert_eq!(replica.refused(started(3)).kind, RefusalKind::Stale);
    replica.done(removed(3, FIRST));
    assert_eq!(replica.state.etcd().leftover_members().len(), 0);
    assert_eq!(replica.refused(removed(3, FIRST)).kind, RefusalKind::Stale);
}

/// The node may have been recorded as removed while its etcd member still existed.
#[test]
fn a_node_removed_while_it_waits_again_leaves_its_name() {
    let mut replica = three_voters_and_a_fourth();
    replica.done(removed(3, FIRST));
    replica.done(remove(3));
    let removals: Vec<_> = replica.state.etcd().leftover_members().collect();
    assert_eq!((removals.len(), removals[0].1.member_id), (1, None));
    replica.done(removed(3, SECOND));
    assert_eq!(replica.state.etcd().leftover_members().len(), 0);
}

#[test]
fn a_node_removed_while_it_waits_leaves_nothing() {
    let mut replica = three_voters_and_a_fourth();
    replica.done(remove(4));
    assert_eq!(replica.state.etcd().leftover_members().len(), 0);
}
