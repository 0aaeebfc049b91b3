use std::collections::BTreeSet;

use muster_types::Role;
use muster_types::etcd::{EtcdGeneration, EtcdPeer, peer_url};

use super::*;
use crate::EtcdChange;
use crate::etcd::{EtcdObservation, ObservedMember, Step, next_step};

const FIRST: EtcdGeneration = EtcdGeneration::FIRST;
const SECOND: EtcdGeneration = EtcdGeneration(1);

fn member(number: u8) -> ObservedMember {
    ObservedMember {
        member_id: etcd_id(number.into()),
        name: name(number).to_string(),
        peer_urls: vec![peer_url(address(number))],
        learner: false,
        healthy: true,
    }
}

fn learner(number: u8) -> ObservedMember {
    ObservedMember { learner: true, ..member(number) }
}

fn observed(members: impl IntoIterator<Item = ObservedMember>) -> EtcdObservation {
    EtcdObservation { members: members.into_iter().collect(), down: BTreeSet::new() }
}

fn change(change: EtcdChange) -> Command {
    Command::Etcd(change)
}

/// Nodes 1 to 3 vote as etcd members 1 to 3.
fn three_voters() -> Replica {
    let mut replica = Replica::founded(3);
    for number in 1..=3 {
        let member_id = etcd_id(number.into());
        let started = EtcdChange::Started { node: id(number), generation: FIRST, member_id };
        replica.done(change(started));
    }
    replica
}

fn add(replica: &mut Replica, number: u8) {
    replica.done(change(EtcdChange::Added {
        node: id(number),
        generation: FIRST,
        member_id: etcd_id(number.into()),
        peer_url: peer_url(address(number)),
    }));
}

#[test]
fn what_agrees_needs_no_step() {
    let replica = three_voters();
    assert_eq!(next_step(&replica.state, &observed([1, 2, 3].map(member))), None);
}

#[test]
fn an_empty_list_is_no_observation() {
    let mut replica = three_voters();
    replica.done(Command::Admit(admit(4, Role::ControlPlane)));
    assert_eq!(next_step(&replica.state, &EtcdObservation::default()), None);
}

#[test]
fn the_node_that_waits_longest_is_added_as_long_as_it_answers() {
    let mut replica = three_voters();
    replica.done(Command::Admit(admit(5, Role::ControlPlane)));
    replica.done(Command::Admit(admit(4, Role::ControlPlane)));
    replica.done(Command::Admit(admit(6, Role::Worker)));
    let mut observed = observed([1, 2, 3].map(member));
    let add = |number| {
        let peer = EtcdPeer { name: name(number), url: peer_url(address(number)) };
        Some(Step::Add { node: id(number), generation: FIRST, peer })
    };
    assert_eq!(next_step(&replica.state, &observed), add(5));
    observed.down.insert(id(5));
    assert_eq!(next_step(&replica.state, &observed), add(4));
    observed.down.insert(id(4));
    assert_eq!(next_step(&replica.state, &observed), None);
}

#[test]
fn no_node_is_added_next_to_a_learner_which_is_promoted_once_it_answers() {
    let mut replica = three_voters();
    replica.done(Command::Admit(admit(4, Role::ControlPlane)));
    replica.done(Command::Admit(admit(5, Role::ControlPlane)));
    add(&mut replica, 4);
    let with = |learner| observed([member(1), member(2), member(3), learner]);
    let starting = ObservedMember { name: String::new(), healthy: false, ..learner(4) };
    assert_eq!(next_step(&replica.state, &with(starting)), None);
    let promote = Step::Promote { node: id(4), generation: FIRST, member_id: etcd_id(4) };
    assert_eq!(next_step(&replica.state, &with(learner(4))), Some(promote));
}

#[test]
fn a_learner_whose_node_is_down_is_replaced_by_one_that_answers() {
    let mut replica = three_voters();
    replica.done(Command::Admit(admit(4, Role::ControlPlane)));
    add(&mut replica, 4);
    let silent = ObservedMember { healthy: false, ..learner(4) };
    let mut observed = observed([member(1), member(2), member(3), silent]);
    observed.down.insert(id(4));
    assert_eq!(next_step(&replica.state, &observed), None, "no other node waits");
    replica.done(Command::Admit(admit(5, Role::ControlPlane)));
    let step = Step::Remove { member_id: etcd_id(4), of: Some((id(4), FIRST)) };
    assert_eq!(next_step(&replica.state, &observed), Some(step));
}

#[test]
fn a_leader_that_died_after_adding_is_made_up_for() {
    let mut replica = three_voters();
    replica.done(Command::Admit(admit(4, Role::ControlPlane)));
    let stray = ObservedMember { name: String::new(), healthy: false, ..learner(4) };
    let members = [member(1), member(2), member(3), stray];
    let added = EtcdChange::Added {
        node: id(4),
        generation: FIRST,
        member_id: etcd_id(4),
        peer_url: peer_url(address(4)),
    };
    let step = next_step(&replica.state, &observed(members.clone()));
    assert_eq!(step, Some(Step::Record(added)));
    replica.done(remove(4));
    let step = next_step(&replica.state, &observed(members));
    assert_eq!(step, Some(Step::Remove { member_id: etcd_id(4), of: None }));
}

#[test]
fn a_voter_is_not_removed_at_the_cost_of_the_quorum() {
    let mut replica = three_voters();
    replica.done(remove(3));
    let silent = ObservedMember { healthy: false, ..member(2) };
    let members = [member(1), silent, member(3)];
    assert_eq!(next_step(&replica.state, &observed(members)), None);
    let step = next_step(&replica.state, &observed([1, 2, 3].map(member)));
    assert_eq!(step, Some(Step::Remove { member_id: etcd_id(3), of: Some((id(3), FIRST)) }));
}

#[test]
fn a_new_address_is_updated_in_etcd() {
    let mut replica = three_voters();
    let mut moved = report(2);
    moved.addresses = vec![address(22)];
    replica.done(Command::Report(moved));
    let peer_url = peer_url(address(22));
    let (node, generation) = (id(2), FIRST);
    let update =
        Step::Update { node, generation, member_id: etcd_id(2), peer_url: peer_url.clone() };
    let step = next_step(&replica.state, &observed([1, 2, 3].map(member)));
    assert_eq!(step, Some(update));
    let updated = ObservedMember { peer_urls: vec![peer_url.clone()], ..member(2) };
    let step = next_step(&replica.state, &observed([member(1), updated, member(3)]));
    assert_eq!(step, Some(Step::Record(EtcdChange::PeerUrlChanged { node, generation, peer_url })));
}

/// With an old list, node 3 was recorded as removed. Its real voter then blocked the new member
/// indefinitely: nothing removed it, and etcd takes no peer URL twice.
#[test]
fn a_voter_wrongly_recorded_as_removed_is_removed_for_the_next() {
    let mut replica = three_voters();
    replica.done(change(EtcdChange::Removed { node: id(3), generation: FIRST }));
    let stopped = ObservedMember { healthy: false, ..member(3) };
    let step = next_step(&replica.state, &observed([member(1), member(2), stopped.clone()]));
    assert_eq!(step, Some(Step::Remove { member_id: etcd_id(3), of: None }));
    let silent = ObservedMember { healthy: false, ..member(2) };
    let step = next_step(&replica.state, &observed([member(1), silent, stopped.clone()]));
    assert_eq!(step, None, "it would cost the quorum");
    let peer = EtcdPeer { name: name(3), url: peer_url(address(3)) };
    let step = next_step(&replica.state, &observed([member(1), member(2)]));
    assert_eq!(step, Some(Step::Add { node: id(3), generation: SECOND, peer }));
    // The same with a learner that has started: its data is not reused.
    let learner = ObservedMember { healthy: false, ..learner(3) };
    let step = next_step(&replica.state, &observed([member(1), member(2), learner]));
    assert_eq!(step, Some(Step::Remove { member_id: etcd_id(3), of: None }));
    // If its node is removed meanwhile, it is found by its name.
    replica.done(remove(3));
    let step = next_step(&replica.state, &observed([member(1), member(2), stopped]));
    assert_eq!(step, Some(Step::Remove { member_id: etcd_id(3), of: Some((id(3), SECOND)) }));
}

/// A founder was removed before its etcd was seen, so its member is known by name only. A machine
/// with that name has joined since and votes. Its member must not be taken for the old one.
#[test]
fn a_new_node_of_the_same_name_is_not_taken_for_the_old_ones_member() {
    let mut replica = Replica::founded(3);
    replica.done(remove(3));
    let mut namesake = admit(4, Role::ControlPlane);
    namesake.name = name(3);
    replica.done(Command::Admit(namesake));
    for number in 1..=2 {
        let member_id = etcd_id(number.into());
        let started = EtcdChange::Started { node: id(number), generation: FIRST, member_id };
        replica.done(change(started));
    }
    add(&mut replica, 4);
    let promoted = EtcdChange::Promoted { node: id(4), generation: FIRST, member_id: etcd_id(4) };
    replica.done(change(promoted));
    let new = ObservedMember { name: name(3).to_string(), ..member(4) };
    let step = next_step(&replica.state, &observed([member(1), member(2), new.clone()]));
    let forgotten = EtcdChange::Removed { node: id(3), generation: FIRST };
    assert_eq!(step, Some(Step::Record(forgotten)));
    let step = next_step(&replica.state, &observed([member(1), member(2), new, member(3)]));
    assert_eq!(step, Some(Step::Remove { member_id: etcd_id(3), of: Some((id(3), FIRST)) }));
}
