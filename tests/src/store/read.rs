//! Reads a store and compares it with what was written.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use openraft::{EntryPayload, LogId, RaftLogReader};

use super::node::Node;
use super::script::{StoreContents, command};

impl Node {
    /// Returns the contents, after checking each value against what was written.
    pub async fn read(&mut self) -> Result<StoreContents> {
        let pair = |id: LogId<u64>| (id.index, id.leader_id.term);
        let mut contents = StoreContents {
            vote: self.log.read_vote().await?.map(|vote| vote.leader_id.term),
            purged: self.log.get_log_state().await?.last_purged_log_id.map(pair),
            committed: self.log.read_committed().await?.map(pair),
            ..StoreContents::default()
        };
        for entry in self.log.try_get_log_entries(..).await? {
            let (index, term) = pair(entry.log_id);
            let EntryPayload::Normal(found) = entry.payload else {
                anyhow::bail!("entry {index} carries no command");
            };
            ensure!(found == command(index, term), "entry {index} of term {term} is garbled");
            contents.log.insert(index, term);
        }
        let state = self.log.get_log_state().await?;
        let last = contents.log.last_key_value().map(|(index, term)| (*index, *term));
        ensure!(state.last_log_id.map(pair) == last.or(contents.purged), "the log's end is wrong");
        if let Some(snapshot) = self.machine.get_current_snapshot().await? {
            let index = snapshot.meta.last_log_id.context("an empty snapshot")?.index;
            contents.snapshot = Some(index);
            let applied = self.machine.applied_state().await?.0.map(|id| id.index);
            ensure!(applied == Some(index), "the state is not that of the snapshot");
            contents.history = self.applied_terms(index)?;
        }
        Ok(contents)
    }

    /// Returns the terms of the applied commands. They must be intact and without gaps.
    fn applied_terms(&self, last: u64) -> Result<BTreeMap<u64, u64>> {
        let state = Arc::clone(&self.state.borrow());
        ensure!(state.0.keys().copied().eq(0..=last), "the state has not every command to {last}");
        let mut terms = BTreeMap::new();
        for (index, text) in &state.0 {
            let term = text.split(['/', ':']).nth(1).context("no term")?.parse()?;
            ensure!(*text == command(*index, term), "command {index} is garbled");
            terms.insert(*index, term);
        }
        Ok(terms)
    }
}
