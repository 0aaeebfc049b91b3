//! openraft's own suite, and the behaviour of a store that is damaged, foreign or full.

use openraft::testing::{StoreBuilder, Suite};
use serde::{Deserialize, Serialize};

use muster_proto::{ClusterId, NodeId};
use openraft::Entry;

use super::*;

openraft::declare_raft_types!(
    pub(super) Config:
        D = String,
        R = Option<u64>,
        NodeId = u64,
        Node = openraft::EmptyNode,
        Entry = Entry<Config>,
        SnapshotData = Body,
);

/// A state whose contents show every command and its place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed(Vec<(u64, String)>);

impl State for Listed {
    type Command = String;
    type Outcome = Option<u64>;

    fn apply(&mut self, index: u64, command: &String) -> Option<u64> {
        self.0.push((index, command.clone()));
        Some(index)
    }

    fn nothing() -> Option<u64> {
        None
    }
}

struct OnDisk;

impl StoreBuilder<Config, LogStore<Config>, Machine<Config, Listed>, tempfile::TempDir> for OnDisk {
    async fn build(
        &self,
    ) -> Result<
        (tempfile::TempDir, LogStore<Config>, Machine<Config, Listed>),
        openraft::StorageError<u64>,
    > {
        let dir = tempfile::tempdir().unwrap();
        let opened = open_in(&dir).unwrap();
        Ok((dir, opened.log, opened.machine))
    }
}

fn owner() -> Owner {
    Owner { node: NodeId::from_bytes([1; 32]), cluster: ClusterId::from_bytes([2; 32]) }
}

fn open_in(dir: &tempfile::TempDir) -> Result<Opened<Config, Listed>, OpenError> {
    open(&dir.path().join("raft"), &owner(), SLED)
}

#[test]
fn openrafts_own_suite_passes_on_real_files() {
    Suite::test_all(OnDisk).unwrap();
}
