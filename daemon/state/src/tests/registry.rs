use muster_types::Role;
use muster_types::etcd::{DataState, EtcdGeneration};

use super::*;
use crate::command::Remove;
use crate::etcd::{EtcdMemberPhase, EtcdReport};

#[test]
fn removal_ends_a_membership_and_says_so_again_when_asked_again() {
    let mut replica = Replica::founded(3);
    replica.done(Command::Admit(admit(4, Role::Worker)));
    let removed = Outcome::Removed { node: id(4), name: name(4) };
    assert_eq!(replica.run(remove(4)), removed);
    assert!(replica.state.member(&id(4)).is_none());
    assert!(replica.state.is_removed(&id(4)));
    let entry = replica.state.audit().next_back().unwrap();
    assert_eq!(
        (entry.actor.as_str(), entry.action.as_str(), entry.subject.as_str()),
        ("admin", "remove-node", "node node-4")
    );
    assert_eq!(replica.run(remove(4)), removed);
    assert_eq!(
        replica.refused(remove(9)),
        refusal(
            RefusalKind::NotAMember,
            &format!("no member has the node id {}; see `musterctl members`", id(9).short())
        )
    );
}

#[test]
fn the_last_control_plane_node_stays_even_by_force() {
    let mut replica = Replica::founded(1);
    let refused =
        replica.refused(Command::Remove(Remove { node: id(1), by: by(ADMIN), force: true }));
    assert_eq!(
        refused,
        refusal(
            RefusalKind::LastControlPlane,
            "node-1 is the last control-plane node and the cluster needs one; join another one \
            first"
        )
    );
}

#[test]
fn a_removal_that_costs_etcd_its_quorum_wants_force() {
    let mut replica = Replica::founded(3);
    replica.done(lost_report(3));
    assert_eq!(
        replica.refused(remove(2)),
        refusal(
            RefusalKind::QuorumAtRisk,
            "without node-2 the remaining etcd members would have no quorum; wait until `musterctl \
             etcd members` shows the others as voters, or use --force"
        )
    );
    replica.clone().done(remove(3));
    replica.done(Command::Remove(Remove { node: id(2), by: by(ADMIN), force: true }));
}

#[test]
fn only_an_admin_removes_nodes() {
    let mut replica = Replica::founded(3);
    let mut removed_by = |operator| {
        replica.refused(Command::Remove(Remove { node: id(3), by: by(operator), force: true }))
    };
    assert_eq!(
        removed_by(OPERATOR),
        refusal(
            RefusalKind::NotAllowed,
            "operator operator has the role operator, which may not call RemoveNode; ask an admin"
        )
    );
    assert_eq!(
        removed_by(99),
        refusal(
            RefusalKind::NotAllowed,
            &format!(
                "{} is not an operator of this cluster; operators come from node.yaml",
                key(99)
            )
        )
    );
}

#[test]
fn a_node_is_found_by_name_and_by_id_and_a_typo_gets_the_nearest_name() {
    let replica = Replica::founded(3);
    assert_eq!(replica.state.find("node-2").unwrap().id, id(2));
    assert_eq!(replica.state.find(&id(2).to_string()).unwrap().id, id(2));
    assert_eq!(
        replica.state.find("noed-1").unwrap_err(),
        refusal(
            RefusalKind::NotAMember,
            "no member has the name or node id \"noed-1\"; did you mean node-1?"
        )
    );
    assert_eq!(
        replica.state.find("Something else").unwrap_err(),
        refusal(
            RefusalKind::NotAMember,
            "no member has the name or node id \"Something else\"; see `musterctl members`"
        )
    );
}

#[test]
fn a_report_that_changes_nothing_is_known_before_it_is_proposed() {
    let mut replica = Replica::founded(3);
    let first = report(2);
    assert!(replica.state.would_change(&first));
    assert_eq!(replica.run(Command::Report(first.clone())), Outcome::Done);
    assert!(!replica.state.would_change(&first));
    assert_eq!(replica.run(Command::Report(first.clone())), Outcome::Unchanged);
    let mut moved = first;
    moved.addresses = vec![address(22)];
    assert!(replica.state.would_change(&moved));
    replica.done(Command::Report(moved));
    assert_eq!(replica.state.member(&id(2)).unwrap().addresses, [address(22)]);
    assert_eq!(replica.state.etcd_peer_url(&id(2)).unwrap(), "https://10.0.0.22:2380");
}

#[test]
fn a_report_of_an_unknown_node_or_with_invalid_values_changes_nothing() {
    let mut replica = Replica::founded(3);
    assert!(!replica.state.would_change(&report(9)));
    assert_eq!(
        replica.refused(Command::Report(report(9))),
        refusal(
            RefusalKind::NotAMember,
            &format!("node {} is not a member; see `musterctl members`", id(9).short())
        )
    );
    replica.done(Command::Admit(admit(4, Role::Worker)));
    let Command::Report(mut odd) = lost_report(3) else { unreachable!() };
    odd.node = id(4);
    assert!(!replica.state.would_change(&odd));
    assert_eq!(
        replica.refused(Command::Report(odd)),
        refusal(RefusalKind::Invalid, "node-4 is a worker and has no etcd to report")
    );
}

#[test]
fn lost_etcd_data_makes_a_lost_member_once() {
    let mut replica = Replica::founded(3);
    let phase = |replica: &Replica| replica.state.etcd().node(&id(3)).unwrap().phase;
    replica.done(lost_report(3));
    assert_eq!(phase(&replica), EtcdMemberPhase::Lost { member_id: None });
    assert_eq!(replica.run(lost_report(3)), Outcome::Unchanged);
}

fn lost_report(number: u8) -> Command {
    let mut lost = report(number);
    lost.etcd = Some(EtcdReport {
        generation: EtcdGeneration::FIRST,
        data: DataState::Lost,
        version: "3.4.23".to_owned(),
    });
    Command::Report(lost)
}
