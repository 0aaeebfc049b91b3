//! Quorum arithmetic of Raft's and etcd's voters. The callers know which voters there are.

use std::collections::BTreeMap;

/// Voters, and whether each of them answers. A silent voter counts towards the majority only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Voters<K> {
    answers: BTreeMap<K, bool>,
}

impl<K: Ord> FromIterator<(K, bool)> for Voters<K> {
    fn from_iter<I: IntoIterator<Item = (K, bool)>>(voters: I) -> Self {
        Self { answers: voters.into_iter().collect() }
    }
}

impl<K: Ord + Copy> Voters<K> {
    /// The voters, each with whether it answers.
    pub(crate) fn all(self) -> impl Iterator<Item = (K, bool)> {
        self.answers.into_iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.answers.len()
    }

    /// The number of voters that answer.
    pub(crate) fn answering(&self) -> usize {
        self.answers.values().filter(|answers| **answers).count()
    }

    /// The voters that do not answer.
    pub(crate) fn silent(&self) -> impl Iterator<Item = &K> {
        self.answers.iter().filter(|(_, answers)| !**answers).map(|(voter, _)| voter)
    }

    /// Returns whether a majority answers. Never true without voters.
    pub(crate) fn has_quorum(&self) -> bool {
        self.answering() > self.len() / 2
    }

    /// The number of answering voters that may fail until there is no majority.
    pub(crate) fn tolerance(&self) -> usize {
        self.answering().saturating_sub(self.len() / 2 + 1)
    }

    /// The voters after this one was added and answers.
    pub(crate) fn with(mut self, voter: K) -> Self {
        self.answers.insert(voter, true);
        self
    }

    /// The voters after this one was removed.
    pub(crate) fn without(mut self, voter: &K) -> Self {
        self.answers.remove(voter);
        self
    }

    /// Returns whether the others have a quorum of their own once this voter is removed. A node
    /// that does not vote can always be spared.
    pub(crate) fn can_spare(self, voter: &K) -> bool {
        !self.answers.contains_key(voter) || self.without(voter).has_quorum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Voters from 0, with the number of those that answer.
    fn voters(answering: usize, silent: usize) -> Voters<usize> {
        (0..answering + silent).map(|n| (n, n < answering)).collect()
    }

    #[test]
    fn a_quorum_is_more_than_half_of_all_voters() {
        for (answering, silent, expected) in
            [(0, 0, false), (1, 0, true), (1, 1, false), (2, 1, true), (2, 2, false), (3, 2, true)]
        {
            assert_eq!(voters(answering, silent).has_quorum(), expected, "{answering} {silent}");
        }
    }

    #[test]
    fn a_voter_can_be_spared_if_the_others_have_a_quorum_of_their_own() {
        assert!(!voters(1, 0).can_spare(&0), "the only voter");
        assert!(voters(2, 0).can_spare(&0));
        assert!(!voters(2, 1).can_spare(&0), "one of the two that remain is silent");
        assert!(voters(2, 1).can_spare(&2), "the silent one itself");
        assert!(voters(0, 1).can_spare(&7), "it does not vote");
    }
}
