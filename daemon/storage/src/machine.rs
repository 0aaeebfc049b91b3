//! openraft's state machine: the replicated state in memory, published after every batch, and its
//! snapshots in files. All decisions are in [`ReplicatedState::apply`].

use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{
    Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, RaftTypeConfig, Snapshot,
    SnapshotMeta, StorageError, StorageIOError, StoredMembership,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::blocking::blocking;
use super::codec;
use super::durable_index::DurableWatch;
use super::error::{StoreError, to_any_error};
use super::snapshot::{self, SnapshotBody, SnapshotStore};
use muster_types::error::chain;

/// Replicated state. Equal commands in equal order result in equal states.
pub trait ReplicatedState:
    Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static
{
    type Command;
    type Outcome;

    /// Applies the committed command at `index`. Never fails: a refused command is an outcome.
    fn apply(&mut self, index: u64, command: &Self::Command) -> Self::Outcome;

    /// Outcome of an entry without a command.
    fn empty_outcome() -> Self::Outcome;
}

/// State machine of one node.
#[derive(Debug)]
pub struct StateMachine<C: RaftTypeConfig, S> {
    applied: Option<LogId<C::NodeId>>,
    membership: StoredMembership<C::NodeId, C::Node>,
    /// The state. Changed in place while no reader holds it, else copied.
    state: watch::Sender<Arc<S>>,
    snapshots: Arc<SnapshotStore>,
    /// Durable index of the log: entries beyond it are not applied.
    flushed: DurableWatch,
}

/// Builder of a snapshot of the state at the time of its creation.
#[derive(Debug)]
pub struct SnapshotBuilder<C: RaftTypeConfig, S> {
    applied: Option<LogId<C::NodeId>>,
    membership: StoredMembership<C::NodeId, C::Node>,
    state: Arc<S>,
    snapshots: Arc<SnapshotStore>,
}

type Meta<C> = SnapshotMeta<<C as RaftTypeConfig>::NodeId, <C as RaftTypeConfig>::Node>;

impl<C, S> StateMachine<C, S>
where
    C: RaftTypeConfig<Entry = Entry<C>, SnapshotData = SnapshotBody>,
    S: ReplicatedState<Command = C::D, Outcome = C::R>,
{
    /// Opens the state machine from the newest snapshot. `floor` is the last purged log index.
    pub(super) fn open(
        snapshots: Arc<SnapshotStore>,
        floor: Option<u64>,
        flushed: DurableWatch,
    ) -> Result<Self, StoreError> {
        let mut machine = Self {
            applied: None,
            membership: StoredMembership::default(),
            state: watch::Sender::new(Arc::new(S::default())),
            snapshots,
            flushed,
        };
        if let Some(read) = machine.snapshots.newest(floor)? {
            let corrupt = |why| machine.snapshots.corrupt(why);
            let meta: Meta<C> = codec::unpack(&read.header).map_err(corrupt)?;
            let state = codec::unpack(&read.body).map_err(corrupt)?;
            machine.replace(meta, state);
        }
        Ok(machine)
    }

    /// Applies entries without a log: openraft's suite passes entries that no log holds.
    #[cfg(test)]
    pub(super) fn without_log(self) -> Self {
        Self { flushed: DurableWatch::unlimited(), ..self }
    }

    /// Subscribes to the state, updated after every applied batch.
    pub fn subscribe(&self) -> watch::Receiver<Arc<S>> {
        self.state.subscribe()
    }

    fn replace(&mut self, meta: Meta<C>, state: S) {
        self.applied.clone_from(&meta.last_log_id);
        self.membership = meta.last_membership;
        self.state.send_replace(Arc::new(state));
    }
}

impl<C, S> RaftStateMachine<C> for StateMachine<C, S>
where
    C: RaftTypeConfig<Entry = Entry<C>, SnapshotData = SnapshotBody>,
    S: ReplicatedState<Command = C::D, Outcome = C::R>,
{
    type SnapshotBuilder = SnapshotBuilder<C, S>;

    async fn applied_state(
        &mut self,
    ) -> Result<
        (Option<LogId<C::NodeId>>, StoredMembership<C::NodeId, C::Node>),
        StorageError<C::NodeId>,
    > {
        Ok((self.applied.clone(), self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<C::R>, StorageError<C::NodeId>>
    where
        I: IntoIterator<Item = Entry<C>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        if let Some(last) = entries.last() {
            let error = |e| StorageIOError::apply(last.log_id.clone(), to_any_error(&e));
            self.flushed.wait_for(last.log_id.index).await.map_err(error)?;
        }
        let mut outcomes = Vec::with_capacity(entries.len());
        let Self { applied, membership, .. } = self;
        self.state.send_modify(|state| {
            let state = Arc::make_mut(state);
            for entry in entries {
                outcomes.push(match &entry.payload {
                    EntryPayload::Blank => S::empty_outcome(),
                    EntryPayload::Normal(command) => state.apply(entry.log_id.index, command),
                    EntryPayload::Membership(members) => {
                        *membership =
                            StoredMembership::new(Some(entry.log_id.clone()), members.clone());
                        S::empty_outcome()
                    }
                });
                *applied = Some(entry.log_id);
            }
        });
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder<C, S> {
        SnapshotBuilder {
            applied: self.applied.clone(),
            membership: self.membership.clone(),
            state: Arc::clone(&self.state.borrow()),
            snapshots: Arc::clone(&self.snapshots),
        }
    }

    async fn begin_receiving_snapshot(
        &mut self,
    ) -> Result<Box<SnapshotBody>, StorageError<C::NodeId>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &Meta<C>,
        snapshot: Box<SnapshotBody>,
    ) -> Result<(), StorageError<C::NodeId>> {
        // The log waits for this snapshot before it purges the covered entries.
        let error = |e: StoreError| {
            self.snapshots.fail(&e);
            StorageIOError::write_snapshot(Some(meta.signature()), to_any_error(&e))
        };
        let state = codec::unpack(&snapshot.0)
            .map_err(|why| {
                StoreError::Stopped(format!("the leader's snapshot is unreadable: {why}"))
            })
            .map_err(error)?;
        save(&self.snapshots, meta, snapshot.0).await.map_err(error)?;
        self.replace(meta.clone(), state);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<C>>, StorageError<C::NodeId>> {
        let error = |e: StoreError| StorageIOError::read_snapshot(None, to_any_error(&e));
        let snapshots = Arc::clone(&self.snapshots);
        let read = match blocking(move || snapshots.last()).await {
            Ok(None) => return Ok(None),
            Ok(Some(read)) => read,
            // An older snapshot may end before the log begins; the state in memory is complete.
            Err(damage @ StoreError::Corrupt { .. }) => {
                let error = chain(&damage);
                tracing::error!(error, "snapshot corrupt, rebuilding it from memory");
                return self.get_snapshot_builder().await.build_snapshot().await.map(Some);
            }
            Err(other) => return Err(error(other).into()),
        };
        let meta = codec::unpack(&read.header).map_err(|why| error(self.snapshots.corrupt(why)))?;
        Ok(Some(Snapshot { meta, snapshot: Box::new(SnapshotBody(read.body)) }))
    }
}

impl<C, S> RaftSnapshotBuilder<C> for SnapshotBuilder<C, S>
where
    C: RaftTypeConfig<Entry = Entry<C>, SnapshotData = SnapshotBody>,
    S: ReplicatedState<Command = C::D, Outcome = C::R>,
{
    async fn build_snapshot(&mut self) -> Result<Snapshot<C>, StorageError<C::NodeId>> {
        let error = |e: StoreError| {
            self.snapshots.fail(&e);
            StorageIOError::write_snapshot(None, to_any_error(&e))
        };
        let state = Arc::clone(&self.state);
        let body = blocking(move || codec::pack(&*state).map_err(StoreError::Stopped))
            .await
            .map(Bytes::from)
            .map_err(error)?;
        let index = self.applied.as_ref().map_or(0, |id| id.index);
        let meta = SnapshotMeta {
            last_log_id: self.applied.clone(),
            last_membership: self.membership.clone(),
            snapshot_id: snapshot::snapshot_id(index, &body),
        };
        save(&self.snapshots, &meta, body.clone()).await.map_err(error)?;
        Ok(Snapshot { meta, snapshot: Box::new(SnapshotBody(body)) })
    }
}

async fn save<N: openraft::NodeId, M: openraft::Node>(
    snapshots: &Arc<SnapshotStore>,
    meta: &SnapshotMeta<N, M>,
    body: Bytes,
) -> Result<(), StoreError> {
    let index = meta.last_log_id.as_ref().map_or(0, |id| id.index);
    let header = codec::pack(meta).map_err(StoreError::Stopped)?;
    let snapshots = Arc::clone(snapshots);
    blocking(move || snapshots.save(index, &header, &body)).await
}
