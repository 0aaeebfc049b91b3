use muster_types::{ClusterId, ConfigVersion, LogIndex, OperatorRole, UnixMillis};

use super::*;
use crate::command::{FoundCluster, RecordAudit};
use crate::{ClusterState, TimestampedCommand};

fn cannot_found(change: impl FnOnce(&mut FoundCluster), message: &str) {
    let mut command = found(3);
    change(&mut command);
    let mut replica = Replica::new();
    assert_eq!(
        replica.refused(Command::FoundCluster(Box::new(command))),
        refusal(RefusalKind::Invalid, message)
    );
    assert!(replica.state.birth().is_none());
    assert_eq!(replica.state.members().len(), 0);
}

#[test]
fn founding_makes_the_founders_members_and_operators_known() {
    let replica = Replica::founded(3);
    let state = &replica.state;
    assert_eq!(state.members().len(), 3);
    assert_eq!(state.control_plane_ids(), [id(1), id(2), id(3)].into());
    assert_eq!(state.birth().unwrap().founders, [id(1), id(2), id(3)]);
    assert_eq!(state.operator(&key(ADMIN)).unwrap().role, OperatorRole::Admin);
    assert!(state.token(&founding_token()).unwrap().founding);
    assert_eq!(state.config_version(), ConfigVersion::FIRST);
    let entry = state.audit().next_back().unwrap();
    assert_eq!((entry.actor.as_str(), entry.action.as_str()), ("cluster", "found-cluster"));
    assert_eq!((entry.subject.as_str(), entry.outcome.as_str()), ("cluster demo", "ok"));
}

#[test]
fn founding_twice_with_the_same_certificate_is_harmless_and_with_another_is_refused() {
    let mut replica = Replica::founded(3);
    let before = replica.state.members().cloned().collect::<Vec<_>>();
    assert_eq!(replica.run(Command::FoundCluster(Box::new(found(3)))), Outcome::Unchanged);
    let mut other = found(3);
    other.cluster_id = ClusterId::from_bytes([8; 32]);
    let refused = replica.refused(Command::FoundCluster(Box::new(other)));
    let (ours, theirs) =
        (ClusterId::from_bytes([9; 32]).short(), ClusterId::from_bytes([8; 32]).short());
    assert_eq!(
        refused,
        refusal(
            RefusalKind::AlreadyFounded,
            &format!(
                "this group is already the cluster {ours}; a birth certificate of the cluster \
                 {theirs} cannot found it again"
            )
        )
    );
    assert_eq!(replica.state.members().cloned().collect::<Vec<_>>(), before);
}

#[test]
fn nothing_else_comes_before_founding() {
    let commands = [
        Command::Admit(admit(1, muster_types::Role::Worker)),
        remove(1),
        install(0, 1),
        Command::Report(report(1)),
        create("tokenaaaaa", grant(&[muster_types::Role::Worker])),
    ];
    for command in commands {
        let refused = Replica::new().refused(command);
        assert_eq!(
            refused,
            refusal(
                RefusalKind::NotFounded,
                "there is no cluster yet; `musterctl status` shows what each node waits for"
            )
        );
    }
}

#[test]
fn a_wrong_birth_is_refused_with_what_is_wrong() {
    let again = "correct the configuration and start again";
    cannot_found(
        |f| f.founders.clear(),
        &format!("the birth certificate has 0 founders, not 1 to 7; {again}"),
    );
    cannot_found(
        |f| f.founders[1].name = name(1),
        &format!("the birth certificate names a founder twice; {again}"),
    );
    cannot_found(
        |f| f.founders[1].public_key = key(1),
        &format!("the birth certificate names a founder twice; {again}"),
    );
    cannot_found(
        |f| f.certificate.clear(),
        &format!("the birth certificate is not 1 to 65536 bytes long; {again}"),
    );
    cannot_found(
        |f| f.founders[0].addresses.clear(),
        "a node has 1 to 16 addresses, not 0; check machine.network in its configuration",
    );
    cannot_found(
        |f| f.cluster_name.clear(),
        &format!("cluster.clusterName is not 1 to 63 bytes long; {again}"),
    );
    cannot_found(
        |f| f.operators[1].name = f.operators[0].name.clone(),
        &format!("cluster.operators has a name or a key twice; {again}"),
    );
    cannot_found(
        |f| f.operators[1].name.clear(),
        &format!("cluster.operators has a name that is not 1 to 63 bytes long; {again}"),
    );
    cannot_found(
        |f| f.operators = vec![f.operators[0].clone(); 17],
        &format!("cluster.operators has more than 16 entries; {again}"),
    );
}

#[test]
fn the_first_authorities_win() {
    let mut replica = Replica::founded(3);
    assert!(replica.state.machine_authorities().is_empty());
    assert_eq!(replica.run(install(0, 1)), Outcome::Done);
    let agreed = replica.state.authorities().cloned();
    assert_eq!(replica.state.machine_authorities().len(), 1);
    assert_eq!(replica.run(install(0, 2)), Outcome::Unchanged);
    assert_eq!(
        replica.refused(install(1, 2)),
        refusal(
            RefusalKind::Conflict,
            "the cluster already has other authorities; discard these and use those"
        )
    );
    assert_eq!(replica.state.authorities().cloned(), agreed);
}

#[test]
fn authorities_in_each_others_places_are_refused() {
    let mut replica = Replica::founded(1);
    let Command::InstallAuthorities(mut install) = install(0, 1) else { unreachable!() };
    let authorities = &mut install.authorities;
    std::mem::swap(&mut authorities.machine, &mut authorities.etcd);
    assert_eq!(
        replica.refused(Command::InstallAuthorities(install)),
        refusal(
            RefusalKind::Invalid,
            "expected the machine authority, found one of the kind etcd; create the authorities \
            again"
        )
    );
}

#[test]
fn secrets_are_not_printed() {
    let mut replica = Replica::founded(1);
    replica.done(install(0, 1));
    let text = format!("{:?}", replica.state);
    assert!(text.contains("redacted"));
    let key = replica.state.authorities().unwrap().machine.key_pem();
    let pkcs8 = key.lines().nth(1).unwrap();
    assert!(!text.contains(pkcs8));
}

#[test]
fn the_clock_of_the_cluster_never_goes_back() {
    let mut replica = Replica::founded(1);
    let late = replica.state.now();
    replica.now = UnixMillis::from_millis(START.as_millis() - 1_000_000);
    replica.done(Command::Report(report(1)));
    assert_eq!(replica.state.now(), late);
}

#[test]
fn a_command_of_an_applied_index_is_ignored() {
    let mut state = ClusterState::default();
    let stamped =
        TimestampedCommand { now: START, command: Command::FoundCluster(Box::new(found(3))) };
    assert_eq!(state.apply(LogIndex(5), &stamped), Outcome::Done);
    let before = state.clone();
    let admitted = Command::Admit(admit(4, muster_types::Role::Worker));
    for index in 0..=5 {
        let stamped = TimestampedCommand { now: START, command: admitted.clone() };
        assert_eq!(state.apply(LogIndex(index), &stamped), Outcome::Unchanged);
    }
    assert_eq!(state, before);
}

#[test]
fn an_entry_of_the_audit_log_is_one_bounded_line() {
    let mut replica = Replica::founded(1);
    let record = |action: &str, outcome: String| {
        Command::RecordAudit(RecordAudit {
            by: id(1),
            action: action.to_owned(),
            subject: "10.0.0.9\nadmin removed everything".to_owned(),
            outcome,
        })
    };
    replica.done(record("refuse-join", "ä".repeat(600)));
    let entry = replica.state.audit().next_back().unwrap();
    assert_eq!(entry.actor, "node node-1");
    assert_eq!(entry.subject, "10.0.0.9 admin removed everything");
    assert_eq!(entry.outcome, "ä".repeat(256));
    assert_eq!(
        replica.refused(record("", String::new())),
        refusal(RefusalKind::Invalid, "an audit entry names an action")
    );
}

#[test]
fn only_a_control_plane_member_records_audit_entries() {
    let mut replica = Replica::founded(1);
    replica.done(Command::Admit(admit(4, muster_types::Role::Worker)));
    let entries = replica.state.audit().len();
    for number in [4, 9] {
        let refused = replica.refused(Command::RecordAudit(RecordAudit {
            by: id(number),
            action: "refuse-stranger".to_owned(),
            subject: String::new(),
            outcome: String::new(),
        }));
        assert_eq!(
            refused,
            refusal(
                RefusalKind::NotNow,
                &format!(
                    "node {} is not (or no longer) a control-plane member; ask another one",
                    id(number).short()
                )
            )
        );
    }
    assert_eq!(replica.state.audit().len(), entries);
}

#[test]
fn the_audit_log_forgets_the_oldest() {
    let mut replica = Replica::founded(1);
    for number in 0..2_100 {
        replica.done(Command::RecordAudit(RecordAudit {
            by: id(1),
            action: "refuse-join".to_owned(),
            subject: number.to_string(),
            outcome: String::new(),
        }));
    }
    assert_eq!(replica.state.audit().len(), 2_000);
    assert_eq!(replica.state.audit().next().unwrap().subject, "100");
    assert_eq!(replica.state.audit().next_back().unwrap().subject, "2099");
}

#[test]
fn a_snapshot_brings_back_the_same_state() {
    let mut replica = Replica::founded(3);
    replica.done(install(0, 1));
    replica.done(Command::Admit(admit(4, muster_types::Role::ControlPlane)));
    replica.done(create("tokenaaaaa", grant(&[muster_types::Role::Worker])));
    replica.done(remove(2));
    assert_eq!(replica.restored(), replica.state);
}

#[test]
fn a_state_of_an_older_build_without_newer_parts_can_be_read() {
    #[derive(serde::Serialize)]
    struct Old {
        applied_index: Option<u64>,
        now_ms: i64,
    }
    let bytes = rmp_serde::to_vec_named(&Old { applied_index: Some(7), now_ms: 9 }).unwrap();
    let state: ClusterState = rmp_serde::from_slice(&bytes).unwrap();
    assert_eq!((state.index(), state.now()), (LogIndex(7), UnixMillis::from_millis(9)));
}
