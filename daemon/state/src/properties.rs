//! Invariants that hold after every command of an arbitrary sequence.

use std::collections::BTreeSet;

use muster_types::etcd::{DataState, EtcdGeneration};
use muster_types::{DurationMillis, LogIndex, Role, UnixMillis};
use proptest::prelude::*;

use super::command::{Grant, RecordAudit, Remove, RevokeToken};
use super::etcd::{EtcdChange, EtcdMemberPhase, EtcdReport};
use super::fixtures::*;
use super::{Actor, ClusterState, Command, Outcome, TimestampedCommand};

/// A small domain, so that commands interact: nodes and names 1 to 9, four tokens.
const TOKENS: [&str; 4] = ["foundingaa", "workeraaaa", "limitedaaa", "unknownaaa"];

fn any_role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::ControlPlane), Just(Role::Worker)]
}

fn any_actor() -> impl Strategy<Value = Actor> {
    prop_oneof![
        6 => Just(by(ADMIN)),
        1 => Just(by(READER)),
        1 => Just(by(99)),
        1 => Just(Actor::Cluster),
        1 => (1..9_u8).prop_map(|n| Actor::Node(id(n))),
    ]
}

fn any_admission() -> impl Strategy<Value = Command> {
    (1..9_u8, 1..9_u8, any_role(), 0..4_usize, 1..9_u8).prop_map(|(n, named, role, t, verifier)| {
        let mut admission = admit(n, role);
        admission.name = name(named);
        admission.token = token_id(TOKENS[t]);
        admission.verified_by = id(verifier);
        Command::Admit(admission)
    })
}

fn any_report() -> impl Strategy<Value = Command> {
    let data =
        prop_oneof![Just(DataState::Absent), Just(DataState::Present), Just(DataState::Lost)];
    let etcd = proptest::option::of(((0..3_u32).prop_map(EtcdGeneration), data));
    (1..9_u8, 0..40_u8, etcd).prop_map(|(n, last, etcd)| {
        let mut report = report(n);
        report.addresses = if last == 0 { vec![] } else { vec![address(last)] };
        report.etcd = etcd.map(|(generation, data)| EtcdReport {
            generation,
            data,
            version: "3.4.23".to_owned(),
        });
        Command::Report(report)
    })
}

fn any_token() -> impl Strategy<Value = Command> {
    let grant = (
        proptest::collection::btree_set(any_role(), 0..3),
        proptest::option::of((0..50_u64).prop_map(DurationMillis::from_millis)),
        proptest::option::of(0..3_u32),
        proptest::option::of((1..9_u8).prop_map(name)),
    );
    let grant = grant.prop_map(|(roles, ttl, uses_allowed, node_name)| Grant {
        roles,
        ttl,
        uses_allowed,
        node_name,
        description: String::new(),
    });
    prop_oneof![
        3 => (0..4_usize, grant).prop_map(|(t, grant)| create(TOKENS[t], grant)),
        1 => (0..4_usize, any_actor()).prop_map(|(t, by)| {
            Command::RevokeToken(RevokeToken { token: token_id(TOKENS[t]), by })
        }),
    ]
}

fn any_etcd() -> impl Strategy<Value = Command> {
    let member = 1..6_u64;
    (0..5_u8, 1..9_u8, 0..3_u32, member).prop_map(|(kind, n, generation, member)| {
        let (node, generation, member_id) = (id(n), EtcdGeneration(generation), etcd_id(member));
        let peer_url = format!("https://10.0.0.{member}:2380");
        Command::Etcd(match kind {
            0 => EtcdChange::Started { node, generation, member_id },
            1 => EtcdChange::Added { node, generation, member_id, peer_url },
            2 => EtcdChange::Promoted { node, generation, member_id },
            3 => EtcdChange::Removed { node, generation },
            _ => EtcdChange::PeerUrlChanged { node, generation, peer_url },
        })
    })
}

fn any_other() -> impl Strategy<Value = Command> {
    prop_oneof![
        (1..4_u8).prop_map(|founders| Command::FoundCluster(Box::new(found(founders)))),
        (0..2_usize, 1..9_u8).prop_map(|(set, n)| install(set, n)),
        (1..9_u8, ".{0,200}").prop_map(|(n, text)| {
            let (subject, outcome) = (text.clone(), text.clone());
            Command::RecordAudit(RecordAudit { by: id(n), action: text, subject, outcome })
        }),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    let removal = (1..9_u8, any_actor(), any::<bool>())
        .prop_map(|(n, by, force)| Command::Remove(Remove { node: id(n), by, force }));
    prop_oneof![
        6 => any_admission(),
        2 => removal,
        4 => any_report(),
        3 => any_token(),
        6 => any_etcd(),
        1 => any_other(),
    ]
}

fn after_start(millis: i64) -> UnixMillis {
    UnixMillis::from_millis(START.as_millis() + millis)
}

/// A history of a founded cluster, with stamps of clocks that disagree. Sometimes unfounded.
fn any_history() -> impl Strategy<Value = Vec<TimestampedCommand>> {
    let stamp = (-20..200_i64).prop_map(after_start);
    let later =
        (any_command(), stamp).prop_map(|(command, now)| TimestampedCommand { now, command });
    (0..8_u8, proptest::collection::vec(later, 0..60)).prop_map(|(founders, mut history)| {
        let first = Command::FoundCluster(Box::new(found(1 + founders % 4)));
        if founders != 7 {
            history.insert(0, TimestampedCommand { now: START, command: first });
        }
        history
    })
}

/// The part of the state that a retry must not change.
fn comparable(state: &ClusterState) -> ClusterState {
    let mut comparable = state.clone();
    comparable.applied_index = None;
    comparable.now = UnixMillis::default();
    comparable.audit = super::audit::AuditLog::default();
    comparable
}

fn check(state: &ClusterState) -> Result<(), TestCaseError> {
    let names: BTreeSet<_> = state.members().map(|m| &m.name).collect();
    prop_assert_eq!(names.len(), state.members().len(), "names are unique");
    for member in state.members() {
        prop_assert_eq!(member.id, super::node_id(&member.public_key));
        prop_assert!(!state.is_removed(&member.id), "no member is removed");
        let planned = state.etcd().node(&member.id).is_some();
        prop_assert_eq!(planned, member.is_control_plane(), "control plane and etcd plan agree");
    }
    for (id, token) in state.tokens() {
        let allowed = token.grant.uses_allowed.unwrap_or(u32::MAX);
        prop_assert!(token.uses <= allowed, "token {} is overspent", id);
    }
    check_etcd(state)?;
    if state.birth().is_some() {
        prop_assert!(!state.control_plane_ids().is_empty(), "a control plane remains");
    }
    let indices: Vec<_> = state.audit().map(|entry| entry.index).collect();
    prop_assert!(indices.len() <= super::limits::MAX_AUDIT_ENTRIES);
    prop_assert!(indices.is_sorted() && indices.iter().all(|i| *i <= state.index()));
    for entry in state.audit() {
        prop_assert!(!entry.outcome.chars().any(char::is_control));
        prop_assert!(entry.outcome.len() <= super::limits::MAX_AUDIT_OUTCOME);
    }
    Ok(())
}

fn check_etcd(state: &ClusterState) -> Result<(), TestCaseError> {
    let plan = state.etcd();
    for (node, _) in plan.nodes() {
        prop_assert!(state.member(node).is_some(), "only members are in the etcd plan");
    }
    for (node, _) in plan.leftover_members() {
        prop_assert!(state.is_removed(node), "only removed nodes have pending removals");
    }
    let learners = plan.nodes().filter(|(_, r)| matches!(r.phase, EtcdMemberPhase::Learner { .. }));
    prop_assert!(learners.count() <= 1, "one learner at a time");
    let held = plan.nodes().filter_map(|(_, r)| r.phase.member_id());
    let held: Vec<_> =
        held.chain(plan.leftover_members().filter_map(|(_, d)| d.member_id)).collect();
    let distinct: BTreeSet<_> = held.iter().collect();
    prop_assert_eq!(held.len(), distinct.len(), "an etcd member belongs to one node");
    Ok(())
}

/// Checks everything that may only grow or must not change from one state to the next.
fn check_progress(before: &ClusterState, after: &ClusterState) -> Result<(), TestCaseError> {
    prop_assert!(after.index() > before.index() && after.now() >= before.now());
    if before.birth().is_some() {
        prop_assert_eq!(before.birth(), after.birth(), "the birth never changes");
        prop_assert_eq!(before.etcd().founders(), after.etcd().founders());
    }
    if before.authorities().is_some() {
        prop_assert_eq!(before.authorities(), after.authorities());
    }
    for (id, tombstone) in before.removed() {
        let kept = after.removed().find(|(removed, _)| *removed == id);
        prop_assert_eq!(kept.map(|(_, t)| t), Some(tombstone), "a removal is permanent");
    }
    for (id, token) in before.tokens() {
        let uses = after.token(id).map_or(u32::MAX, |t| t.uses);
        prop_assert!(uses >= token.uses, "a use is not given back");
    }
    for (node, record) in before.etcd().nodes() {
        let generation = after.etcd().node(node).map_or(EtcdGeneration(u32::MAX), |r| r.generation);
        prop_assert!(generation >= record.generation, "generations never go back");
    }
    Ok(())
}

/// The number of histories to try; `MUSTER_CASES` overrides it in a soak.
pub(super) fn cases(usual: u32) -> u32 {
    std::env::var("MUSTER_CASES").map_or(usual, |n| n.parse().expect("MUSTER_CASES is a number"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(400)))]

    #[test]
    fn invariants_hold_after_every_command(history in any_history()) {
        let mut state = ClusterState::default();
        for (index, stamped) in (1..).map(LogIndex).zip(&history) {
            let before = state.clone();
            let predicted = match &stamped.command {
                Command::Report(report) => Some(state.would_change(report)),
                _ => None,
            };
            let outcome = state.apply(index, stamped);
            check(&state)?;
            check_progress(&before, &state)?;
            let changed = comparable(&before) != comparable(&state);
            if matches!(outcome, Outcome::Refused(_) | Outcome::Unchanged) {
                prop_assert!(!changed, "{:?} changed something", stamped.command);
            }
            if let Some(predicted) = predicted {
                prop_assert_eq!(predicted, changed, "wrong prediction for {:?}", stamped.command);
            }
        }
    }

    #[test]
    fn a_retried_command_changes_nothing_more(history in any_history()) {
        let mut state = ClusterState::default();
        for (index, stamped) in (0..).step_by(2).zip(&history) {
            let first = state.apply(LogIndex(index), stamped);
            let once = comparable(&state);
            let again = state.apply(LogIndex(index + 1), stamped);
            prop_assert_eq!(once, comparable(&state), "{:?} twice", stamped.command);
            if let Outcome::Removed { .. } = first {
                prop_assert_eq!(first, again);
            }
        }
    }

    #[test]
    fn replicas_agree_wherever_a_snapshot_was_taken(
        history in any_history(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut straight = Replica::new();
        let mut restored = ClusterState::default();
        let cut = cut.index(history.len() + 1);
        for (index, stamped) in (1..).map(LogIndex).zip(&history) {
            if usize::try_from(index.0).is_ok_and(|index| index == cut) {
                restored = straight.restored();
            }
            // Commands are encoded and decoded as well.
            let bytes = rmp_serde::to_vec_named(stamped).unwrap();
            let read: TimestampedCommand = rmp_serde::from_slice(&bytes).unwrap();
            prop_assert_eq!(&read, stamped);
            let outcome = straight.state.apply(index, stamped);
            prop_assert_eq!(outcome, restored.apply(index, &read));
        }
        prop_assert_eq!(&straight.state, &restored);
        prop_assert_eq!(straight.restored(), restored);
    }

    #[test]
    fn an_admission_is_predicted_exactly(history in any_history(), admission in any_admission()) {
        let mut state = ClusterState::default();
        for (index, stamped) in (1..).map(LogIndex).zip(&history) {
            state.apply(index, stamped);
        }
        let Command::Admit(admit) = &admission else { unreachable!() };
        let predicted = state.check_admit(admit, after_start(100));
        let stamped = TimestampedCommand { now: after_start(100), command: admission.clone() };
        let outcome = state.apply(LogIndex(state.index().0 + 1), &stamped).into_result();
        prop_assert_eq!(predicted, outcome.map(|_| ()));
    }
}
