//! Reconciles Raft's voters with the registry, one change at a time. Decides only;
//! [`super::membership`] performs the changes.

use std::collections::BTreeSet;

use muster_types::NodeId;

/// Raft's current membership, as the leader sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct RaftMembership {
    /// The voters of the newest configuration.
    pub(crate) voters: BTreeSet<NodeId>,
    /// Members that only receive the log.
    pub(crate) learners: BTreeSet<NodeId>,
    /// Learners whose log has reached the leader's, except for the last few entries.
    pub(crate) caught_up: BTreeSet<NodeId>,
    /// True if a change is half done (joint consensus), as after a crash of the leader.
    pub(crate) joint: bool,
}

/// One membership change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MembershipChange {
    /// Finish the change that is half done.
    Finish(BTreeSet<NodeId>),
    AddLearner(NodeId),
    Promote(NodeId),
    RemoveVoter(NodeId),
    RemoveLearner(NodeId),
}

/// Returns the next change from `have` towards `want`; `None` once they agree, or while a learner
/// has yet to catch up.
pub(crate) fn next_change(
    want: &BTreeSet<NodeId>,
    have: &RaftMembership,
) -> Option<MembershipChange> {
    if have.joint {
        return Some(MembershipChange::Finish(have.voters.clone()));
    }
    if let Some(gone) = have.voters.difference(want).next() {
        return Some(MembershipChange::RemoveVoter(*gone));
    }
    if let Some(gone) = have.learners.difference(want).next() {
        return Some(MembershipChange::RemoveLearner(*gone));
    }
    if let Some(ready) = have.learners.iter().find(|id| have.caught_up.contains(id)) {
        return Some(MembershipChange::Promote(*ready));
    }
    let known: BTreeSet<_> = have.voters.union(&have.learners).copied().collect();
    want.difference(&known).next().map(|new| MembershipChange::AddLearner(*new))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn ids(numbers: &[u8]) -> BTreeSet<NodeId> {
        numbers.iter().map(|n| id(*n)).collect()
    }

    #[test]
    fn a_half_done_change_is_finished_before_anything_else() {
        let have =
            RaftMembership { voters: ids(&[1, 2, 3]), joint: true, ..RaftMembership::default() };
        assert_eq!(next_change(&ids(&[1]), &have), Some(MembershipChange::Finish(ids(&[1, 2, 3]))));
    }

    #[test]
    fn a_learner_votes_only_once_it_has_caught_up() {
        let mut have = RaftMembership {
            voters: ids(&[1, 2, 3]),
            learners: ids(&[4]),
            ..RaftMembership::default()
        };
        assert_eq!(next_change(&ids(&[1, 2, 3, 4]), &have), None);
        have.caught_up = ids(&[4]);
        assert_eq!(next_change(&ids(&[1, 2, 3, 4]), &have), Some(MembershipChange::Promote(id(4))));
    }

    /// Performs a change as Raft would.
    fn perform(have: &mut RaftMembership, change: &MembershipChange) {
        match *change {
            MembershipChange::Finish(_) => have.joint = false,
            MembershipChange::AddLearner(id) => {
                have.learners.insert(id);
                have.caught_up.insert(id);
            }
            MembershipChange::Promote(id) => {
                have.learners.remove(&id);
                have.voters.insert(id);
            }
            MembershipChange::RemoveVoter(id) => assert!(have.voters.remove(&id), "it votes"),
            MembershipChange::RemoveLearner(id) => assert!(have.learners.remove(&id), "it learns"),
        }
    }

    proptest! {
        #[test]
        fn any_membership_converges_and_then_rests(
            want in prop::collection::btree_set(1u8..9, 1..7),
            voters in prop::collection::btree_set(1u8..9, 1..7),
            learners in prop::collection::btree_set(1u8..9, 0..4),
            joint: bool,
        ) {
            let want: BTreeSet<_> = want.into_iter().map(id).collect();
            let voters: BTreeSet<_> = voters.into_iter().map(id).collect();
            let learners: BTreeSet<_> =
                learners.into_iter().map(id).filter(|l| !voters.contains(l)).collect();
            let mut have = RaftMembership { caught_up: learners.clone(), voters, learners, joint };
            let mut steps = 0;
            while let Some(change) = next_change(&want, &have) {
                perform(&mut have, &change);
                steps += 1;
                prop_assert!(steps < 40);
            }
            prop_assert_eq!(&have.voters, &want);
            prop_assert!(have.learners.is_empty());
        }
    }
}
