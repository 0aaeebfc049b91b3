//! The leader that was restarted. openraft 0.9 lets a node that led when it was stopped lead on, in
//! the same term and without an election, and then reads from where it believes the group to have
//! committed. A leader that was elected begins its term with an entry, and its reads wait for that
//! one; a resumed leader's first entry is old, and its mark of what is committed lags behind (it is
//! written lazily). So it would serve reads from before entries that it had committed itself, until
//! the others have acknowledged its log again. Its own log holds all of them, on disk: in the resumed
//! term reads wait for the end of the log as it was at the start.

use muster_proto::NodeId;
use openraft::storage::RaftLogStorage as _;
use openraft::{StorageError, Vote};

use super::types::LogStore;

/// What a node had on disk when it was started.
#[derive(Debug, Clone, Default)]
pub(super) struct Resumed {
    vote: Option<Vote<NodeId>>,
    /// The index of the last entry of the log.
    last: u64,
}

impl Resumed {
    pub(super) async fn read(log: &mut LogStore) -> Result<Self, StorageError<NodeId>> {
        let vote = log.read_vote().await?;
        let last = log.get_log_state().await?.last_log_id.map_or(0, |id| id.index);
        Ok(Self { vote, last })
    }

    /// The index that a read must wait for, where openraft says `read` of a leader with this vote.
    pub(super) fn read_index(&self, vote: &Vote<NodeId>, read: u64) -> u64 {
        // Every leadership that was won since then has a higher vote.
        if self.vote.as_ref() == Some(vote) { read.max(self.last) } else { read }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_in_the_resumed_term_reads_wait_for_the_whole_log() {
        let me = NodeId::from_bytes([1; 32]);
        let resumed = Resumed { vote: Some(Vote::new_committed(3, me)), last: 17 };
        assert_eq!(resumed.read_index(&Vote::new_committed(3, me), 9), 17);
        assert_eq!(resumed.read_index(&Vote::new_committed(3, me), 20), 20);
        assert_eq!(resumed.read_index(&Vote::new_committed(4, me), 9), 9);
        assert_eq!(Resumed::default().read_index(&Vote::new_committed(1, me), 9), 9);
    }
}
