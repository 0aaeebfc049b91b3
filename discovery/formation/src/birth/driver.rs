//! Performs the effects of the protocol: writes are durable before any message that depends on
//! them is returned.

use std::sync::Arc;

use muster_pki::identity::Identity;
use muster_types::NodeId;
use tokio::task::spawn_blocking;

use super::failpoint::FailPointHook;
use super::message::Message;
use super::params::BirthParams;
use super::record::{BirthRecord, Commitment, Decision};
use super::step::{Effect, Event, State};
use super::store::{PromiseStore, StoreError};

/// A message with its receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    pub to: NodeId,
    pub message: Message,
}

/// The protocol of one node, with its record file.
#[derive(Debug)]
pub struct BirthDriver {
    params: BirthParams,
    identity: Arc<Identity>,
    state: State,
    store: PromiseStore,
    hook: FailPointHook,
}

impl BirthDriver {
    /// Restores the state from the store.
    pub fn new(
        params: BirthParams,
        identity: Arc<Identity>,
        store: PromiseStore,
        hook: FailPointHook,
    ) -> Result<Self, StoreError> {
        let state = State::restored(store.read()?);
        Ok(Self { params, identity, state, store, hook })
    }

    pub fn record(&self) -> &BirthRecord {
        self.state.record()
    }

    pub fn params(&self) -> &BirthParams {
        &self.params
    }

    /// Handles one event and returns the messages to send, all backed by durable writes.
    ///
    /// # Errors
    /// When a write failed. The content of the disk is then unknown: drop the driver and stop the
    /// node.
    pub async fn handle(&mut self, event: Event) -> Result<Vec<Outgoing>, StoreError> {
        let effects = self.state.step(&self.params, &*self.identity, event);
        let mut outgoing = Vec::new();
        for effect in effects {
            match effect {
                Effect::Persist(record) => self.persist(record).await?,
                Effect::Send { to, message } => outgoing.push(Outgoing { to, message }),
            }
        }
        Ok(outgoing)
    }

    async fn persist(&self, record: BirthRecord) -> Result<(), StoreError> {
        let stage = stage(&record);
        self.hook.hit(&format!("birth.persist.{stage}.before"));
        let store = self.store.clone();
        let written = spawn_blocking(move || store.write(&record)).await;
        written.unwrap_or_else(|gone| std::panic::resume_unwind(gone.into_panic()))?;
        self.hook.hit(&format!("birth.persist.{stage}.after"));
        Ok(())
    }

    /// Hits the fail point before or after a message is sent.
    pub fn hit_fail_point(&self, message: &Message, when: &str) {
        self.hook.hit(&format!("birth.send.{}.{when}", kind(message)));
    }
}

/// Name of a record in fail points; `free` is an uncommitted one.
fn stage(record: &BirthRecord) -> &'static str {
    match &record.commitment {
        Commitment::None => "free",
        Commitment::Promised(promise) => match promise.vote.as_ref().map(|vote| &vote.decision) {
            Some(Decision::Born(_)) => "certified",
            Some(Decision::Abandoned) => "abandoned",
            None if promise.ballot.round > 0 => "inquired",
            None => "promised",
        },
        Commitment::Born(_) => "born",
        Commitment::Joined(_) => "joined",
    }
}

/// Name of a message in fail points.
fn kind(message: &Message) -> &'static str {
    match message {
        Message::Propose(_) => "propose",
        Message::Promise { .. } => "promise",
        Message::Refuse { .. } => "refuse",
        Message::Inquire { .. } => "inquire",
        Message::InquiryReply { .. } => "inquiry-reply",
        Message::Settle { .. } => "settle",
        Message::Vote { .. } => "vote",
        Message::Born(_) => "born",
        Message::Abandoned(_) => "abandoned",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::birth::params::Quorums;
    use crate::birth::proposal::Proposal;
    use crate::birth::testing::{draft, founders};

    fn driver(disk: &std::path::Path, hook: FailPointHook) -> (BirthDriver, Arc<Proposal>) {
        let mut identities = founders(3);
        let draft = draft(&identities);
        let identity = Arc::new(identities.remove(0));
        let params = BirthParams {
            me: identity.node_id(),
            token_id: draft.token_id.clone(),
            expect: 3,
            config_digest: draft.config_digest,
            quorums: Quorums::of,
        };
        let store = PromiseStore::create(disk, identity.node_id()).unwrap();
        let driver = BirthDriver::new(params, identity, store, hook).unwrap();
        (driver, Arc::new(Proposal::new(draft).unwrap()))
    }

    #[tokio::test]
    async fn no_message_is_returned_before_the_record_is_on_disk() {
        let disk = tempfile::tempdir().unwrap();
        let hits = Arc::new(Mutex::new(Vec::new()));
        let passed = Arc::clone(&hits);
        let hook = FailPointHook::new(move |name| passed.lock().unwrap().push(name.to_owned()));
        let (mut driver, proposal) = driver(disk.path(), hook);
        let outgoing = driver.handle(Event::Propose(proposal)).await.unwrap();
        assert_eq!(outgoing.len(), 2);
        assert_eq!(driver.store.read().unwrap(), *driver.record());
        assert!(driver.record().promise().is_some());
        assert_eq!(
            *hits.lock().unwrap(),
            ["birth.persist.promised.before", "birth.persist.promised.after"]
        );
    }

    #[tokio::test]
    async fn no_message_is_returned_when_the_disk_fails() {
        let disk = tempfile::tempdir().unwrap();
        let (mut driver, proposal) = driver(disk.path(), FailPointHook::noop());
        disk.close().unwrap();
        let error = driver.handle(Event::Propose(proposal)).await.unwrap_err();
        assert!(matches!(error, StoreError::Io { what: "write", .. }), "{error}");
    }
}
