//! The types that openraft is used with, and the replicated state as the state machine.

use muster_types::{LogIndex, NodeId};

use crate::machine::ReplicatedState;
use crate::snapshot::SnapshotBody;
use muster_state::{ClusterState, Outcome, TimestampedCommand};

openraft::declare_raft_types!(
    /// Addresses are not part of Raft's membership: they are in the registry and the directory.
    pub TypeConfig:
        D = TimestampedCommand,
        R = Outcome,
        NodeId = NodeId,
        Node = openraft::EmptyNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = SnapshotBody,
);

impl ReplicatedState for ClusterState {
    type Command = TimestampedCommand;
    type Outcome = Outcome;

    fn apply(&mut self, index: u64, command: &TimestampedCommand) -> Outcome {
        ClusterState::apply(self, LogIndex(index), command)
    }

    fn empty_outcome() -> Outcome {
        Outcome::Unchanged
    }
}
