//! Histories that must be rejected, and a comparison of the invariants with the search.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::search::{SequentialObject, is_linearizable};
use super::{Violation, check, check_register, check_set};
use crate::checker::history::{ClusterIdReport, History, Object, Read, Register, Set, Write};

fn write(value: u64, began: u64, acknowledged: Option<u64>) -> Write {
    Write { value, began, acknowledged, node: "cp-1".to_owned() }
}

fn read<T>(seen: T, began: u64, ended: u64) -> Read<T> {
    Read { seen, began, ended, node: "cp-2".to_owned() }
}

fn set(writes: &[Write], reads: &[(&[u64], u64, u64)]) -> Set {
    let reads = reads.iter().map(|(seen, began, ended)| {
        read(seen.iter().copied().collect::<BTreeSet<_>>(), *began, *ended)
    });
    Object { writes: writes.to_vec(), reads: reads.collect() }
}

fn register(writes: &[Write], reads: &[(Option<u64>, u64, u64)]) -> Register {
    let reads = reads.iter().map(|(seen, began, ended)| read(*seen, *began, *ended));
    Object { writes: writes.to_vec(), reads: reads.collect() }
}

#[test]
fn a_lost_write_is_refused() {
    let history = set(&[write(1, 1, Some(2))], &[(&[], 3, 4)]);
    assert!(matches!(check_set(&history)[..], [Violation::Lost { value: 1, .. }]));
    // The same for a register: a read returns the other value, which was written before.
    let writes = [write(1, 1, Some(2)), write(2, 3, Some(4))];
    let history = register(&writes, &[(Some(1), 5, 6)]);
    assert!(matches!(check_register(&history)[..], [Violation::Cycle { .. }]));
    let history = register(&writes[..1], &[(None, 5, 6)]);
    assert!(matches!(check_register(&history)[..], [Violation::Cycle { .. }]));
}

#[test]
fn a_stale_read_is_refused_although_the_write_was_never_acknowledged() {
    let history = set(&[write(1, 1, None)], &[(&[1], 2, 3), (&[], 4, 5)]);
    assert!(matches!(check_set(&history)[..], [Violation::Stale { value: 1, .. }]));
    let history = register(
        &[write(1, 1, None), write(2, 1, None)],
        &[(Some(1), 2, 3), (Some(2), 4, 5), (Some(1), 6, 7)],
    );
    assert!(matches!(check_register(&history)[..], [Violation::Cycle { .. }]));
}

#[test]
fn a_value_that_was_never_written_or_only_later_is_refused() {
    let history = set(&[write(1, 5, Some(6))], &[(&[7], 1, 2), (&[1], 3, 4)]);
    let found = check_set(&history);
    assert!(found.iter().any(|v| matches!(v, Violation::Phantom { value: 7, .. })), "{found:?}");
    assert!(found.iter().any(|v| matches!(v, Violation::Phantom { value: 1, .. })), "{found:?}");
    let history = register(&[write(1, 5, Some(6))], &[(Some(7), 1, 2), (Some(1), 3, 4)]);
    let found = check_register(&history);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|v| matches!(v, Violation::Phantom { .. })), "{found:?}");
}

#[test]
fn reads_that_contradict_each_other_are_refused() {
    let writes = [write(1, 1, Some(9)), write(2, 1, Some(9))];
    let history = set(&writes, &[(&[1], 2, 8), (&[2], 2, 8)]);
    assert!(matches!(check_set(&history)[..], [Violation::Disagreement { .. }]));
}

#[test]
fn a_write_that_shows_without_the_one_before_it_is_refused() {
    let writes = [write(1, 1, Some(3)), write(2, 4, Some(9))];
    let history = set(&writes, &[(&[2], 2, 8)]);
    assert!(matches!(
        check_set(&history)[..],
        [Violation::OutOfOrder { missing: 1, shown: 2, .. }]
    ));
}

#[test]
fn two_clusters_are_refused() {
    let report = |node: &str, cluster: &str| ClusterIdReport {
        node: node.into(),
        cluster: cluster.into(),
        at: 1,
    };
    let mut history = History {
        cluster_ids: vec![report("cp-1", "a"), report("cp-2", "a")],
        ..History::default()
    };
    assert!(check(&history).is_empty());
    history.cluster_ids.push(report("cp-3", "b"));
    assert!(matches!(check(&history)[..], [(_, Violation::TwoClusters { .. })]));
}

#[test]
fn what_is_concurrent_or_unknown_may_be_seen_or_not() {
    let writes = [write(1, 1, Some(9)), write(2, 1, None)];
    assert!(check_set(&set(&writes, &[(&[], 2, 3), (&[1], 4, 5), (&[1, 2], 20, 21)])).is_empty());
    let reads = [(None, 2, 3), (Some(1), 4, 5), (Some(2), 20, 21)];
    assert!(check_register(&register(&writes, &reads)).is_empty());
}

/// Random histories, as clients could see them of a store without any guarantee.
fn history<T: std::fmt::Debug>(
    seen: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = Object<T>> {
    let span = || (1u64..12, 0u64..6);
    let writes = prop::collection::vec((span(), prop::bool::weighted(0.8)), 0..5);
    let reads = prop::collection::vec((span(), seen), 0..4);
    (writes, reads).prop_map(|(writes, reads)| Object {
        writes: (1..)
            .zip(writes)
            .map(|(value, ((began, took), is_known))| {
                write(value, began, is_known.then_some(began + took))
            })
            .collect(),
        reads: reads.into_iter().map(|((b, took), seen)| read(seen, b, b + took)).collect(),
    })
}

fn agree<T: SequentialObject>(
    history: &Object<T>,
    found: &[Violation],
) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.is_empty(), is_linearizable(history), "{:?}", found);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_set_s_invariants_agree_with_the_search_of_every_order(
        history in history(prop::collection::btree_set(1u64..5, 0..4))
    ) {
        agree(&history, &check_set(&history))?;
    }

    #[test]
    fn the_register_s_invariants_agree_with_the_search_of_every_order(
        history in history(prop::option::weighted(0.8, 1u64..5))
    ) {
        agree(&history, &check_register(&history))?;
    }
}
