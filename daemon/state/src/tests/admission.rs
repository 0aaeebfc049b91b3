use muster_types::Role;

use super::*;
use crate::command::{Admit, RevokeToken};

fn cannot_admit(replica: &Replica, admission: Admit, kind: RefusalKind, message: &str) {
    let expected = refusal(kind, message);
    assert_eq!(replica.state.check_admit(&admission, replica.now).unwrap_err(), expected);
    let mut copy = replica.clone();
    let members = copy.state.members().cloned().collect::<Vec<_>>();
    assert_eq!(copy.refused(Command::Admit(admission)), expected);
    assert_eq!(copy.state.members().cloned().collect::<Vec<_>>(), members);
    let entry = copy.state.audit().next_back().unwrap();
    assert_eq!((entry.action.as_str(), entry.outcome.as_str()), ("admit", message));
}

#[test]
fn a_node_with_a_valid_token_becomes_a_member() {
    let mut replica = Replica::founded(3);
    let admission = admit(4, Role::Worker);
    assert_eq!(replica.state.check_admit(&admission, replica.now), Ok(()));
    let outcome = replica.run(Command::Admit(admission));
    assert_eq!(outcome, Outcome::Admitted { node: id(4), already_member: false });
    let member = replica.state.member_by_name(&name(4)).unwrap();
    assert_eq!((member.id, member.role, member.verified_by), (id(4), Role::Worker, Some(id(1))));
    assert_eq!(replica.state.token(&founding_token()).unwrap().uses, 1);
    assert_eq!(replica.state.control_plane_ids().len(), 3);
    let entry = replica.state.audit().next_back().unwrap();
    assert_eq!(
        (entry.actor.as_str(), entry.subject.as_str(), entry.outcome.as_str()),
        ("node node-1", "node node-4", "ok")
    );
}

#[test]
fn the_same_node_again_spends_no_use_and_needs_no_valid_token() {
    let mut replica = Replica::founded(3);
    let mut once = grant(&[Role::Worker]);
    once.uses_allowed = Some(1);
    replica.done(create("onceaaaaaa", once));
    let mut admission = admit(4, Role::Worker);
    admission.token = token_id("onceaaaaaa");
    replica.done(Command::Admit(admission.clone()));
    let entries = replica.state.audit().len();
    admission.addresses = vec![address(44)];
    let outcome = replica.run(Command::Admit(admission.clone()));
    assert_eq!(outcome, Outcome::Admitted { node: id(4), already_member: true });
    assert_eq!(replica.state.token(&admission.token).unwrap().uses, 1);
    assert_eq!(replica.state.member(&id(4)).unwrap().addresses, [address(44)]);
    assert_eq!(replica.state.audit().len(), entries);
}

#[test]
fn a_taken_name_is_refused_with_the_command_that_frees_it() {
    let mut replica = Replica::founded(3);
    let mut wiped = admit(4, Role::ControlPlane);
    wiped.name = name(2);
    let message = format!(
        "the name node-2 is taken by node {}; give this machine another name, or, if that one is gone \
         or was wiped, run `musterctl node remove node-2`",
        id(2).short()
    );
    cannot_admit(&replica, wiped.clone(), RefusalKind::NameTaken, &message);
    replica.done(remove(2));
    replica.done(Command::Admit(wiped));
    assert_eq!(replica.state.member_by_name(&name(2)).unwrap().id, id(4));
}

#[test]
fn a_removed_identity_never_returns() {
    let mut replica = Replica::founded(3);
    replica.done(remove(3));
    let mut admission = admit(3, Role::ControlPlane);
    admission.name = name(7);
    let message = format!(
        "this machine's identity {} was removed from the cluster (as node-3) and cannot return; \
         wipe its state directory to join as a new node",
        id(3).short()
    );
    cannot_admit(&replica, admission, RefusalKind::Removed, &message);
}

#[test]
fn a_member_cannot_become_another() {
    let replica = Replica::founded(3);
    let message = |as_what: &str| {
        format!(
            "this machine is a member as control-plane node-2 and cannot become {as_what}; start \
             it with `--name node-2` and the machine.type of that name"
        )
    };
    cannot_admit(&replica, admit(2, Role::Worker), RefusalKind::Invalid, &message("worker node-2"));
    let mut renamed = admit(2, Role::ControlPlane);
    renamed.name = name(9);
    cannot_admit(&replica, renamed, RefusalKind::Invalid, &message("control-plane node-9"));
}

#[test]
fn the_token_must_allow_it() {
    let mut replica = Replica::founded(3);
    let refused = |replica: &Replica, token: &str, role, message: &str| {
        let mut admission = admit(4, role);
        admission.token = token_id(token);
        cannot_admit(replica, admission, RefusalKind::Token, message);
    };
    let again = "make another with `musterctl token create`";
    refused(
        &replica,
        "unknownaaa",
        Role::Worker,
        &format!("the cluster has no token unknownaaa; {again}"),
    );
    replica.done(create("workeraaaa", grant(&[Role::Worker])));
    refused(
        &replica,
        "workeraaaa",
        Role::ControlPlane,
        &format!(
            "token workeraaaa does not admit a control-plane node, and node-4 is one by its \
             machine.type and the patches that match its name; rename the machine, or {again}"
        ),
    );
    let mut bound = grant(&[Role::Worker]);
    bound.node_name = Some(name(8));
    replica.done(create("boundaaaaa", bound));
    refused(
        &replica,
        "boundaaaaa",
        Role::Worker,
        &format!(
            "token boundaaaaa admits only a node named node-8, not node-4; use that name or {again}"
        ),
    );
    let mut brief = grant(&[Role::Worker]);
    brief.ttl = Some(muster_types::DurationMillis::from_millis(1_000));
    replica.done(create("briefaaaaa", brief));
    replica.advance(1_000);
    refused(
        &replica,
        "briefaaaaa",
        Role::Worker,
        &format!("token briefaaaaa has expired; {again}"),
    );
    replica
        .done(Command::RevokeToken(RevokeToken { token: token_id("workeraaaa"), by: by(ADMIN) }));
    refused(
        &replica,
        "workeraaaa",
        Role::Worker,
        &format!("token workeraaaa was revoked; {again}"),
    );
}

#[test]
fn a_token_admits_as_many_nodes_as_it_has_uses() {
    let mut replica = Replica::founded(3);
    let mut twice = grant(&[Role::Worker]);
    twice.uses_allowed = Some(2);
    replica.done(create("twiceaaaaa", twice));
    for number in 4..=5 {
        let mut admission = admit(number, Role::Worker);
        admission.token = token_id("twiceaaaaa");
        replica.done(Command::Admit(admission));
    }
    let mut third = admit(6, Role::Worker);
    third.token = token_id("twiceaaaaa");
    cannot_admit(
        &replica,
        third,
        RefusalKind::Token,
        "token twiceaaaaa has been used 2 times; make another with `musterctl token create`",
    );
}

#[test]
fn only_a_control_plane_member_verifies_a_proof() {
    let mut replica = Replica::founded(3);
    replica.done(Command::Admit(admit(4, Role::Worker)));
    for verifier in [4, 77] {
        let mut admission = admit(5, Role::Worker);
        admission.verified_by = id(verifier);
        let message = format!(
            "node {} is not (or no longer) a control-plane member; ask another one",
            id(verifier).short()
        );
        cannot_admit(&replica, admission, RefusalKind::NotNow, &message);
    }
}

#[test]
fn addresses_and_versions_are_bounded() {
    let replica = Replica::founded(3);
    for wrong in ["0.0.0.0:50000", "224.0.0.251:50000", "10.0.0.9:0", "[::]:50000"] {
        let mut admission = admit(4, Role::Worker);
        admission.addresses = vec![wrong.parse().unwrap()];
        let message = format!(
            "{wrong} is not an address that others can dial; check machine.network in the node's \
             configuration"
        );
        cannot_admit(&replica, admission, RefusalKind::Invalid, &message);
    }
    let mut admission = admit(4, Role::Worker);
    admission.addresses = vec![address(4); 17];
    cannot_admit(
        &replica,
        admission,
        RefusalKind::Invalid,
        "a node has 1 to 16 addresses, not 17; check machine.network in its configuration",
    );
    for wrong in ["x".repeat(65), "0.1\n".to_owned()] {
        let mut admission = admit(4, Role::Worker);
        admission.version = wrong;
        cannot_admit(
            &replica,
            admission,
            RefusalKind::Invalid,
            "a version is at most 64 printable ASCII characters",
        );
    }
}
