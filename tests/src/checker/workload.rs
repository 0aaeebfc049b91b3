//! The clients' operations. Every value is written once, through one node. A write without an
//! acknowledgement is not retried, because it may have taken effect.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use muster_init::units::etcd::client::MemberClient;
use muster_messages::operator::{CreateTokenRequest, ListTokensRequest, MembersRequest};
use muster_pki::token::Token;
use muster_services::operator::operator_client::OperatorClient;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use super::access::{Access, CALL_TIMEOUT};
use super::history::{ClusterIdReport, History, Read, Write};

/// Pauses of a client after an answer and after a failure.
const PAUSE: Duration = Duration::from_millis(60);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(250);

/// Keys of the clients' values in etcd.
const KEYS: &[u8] = b"/checker/set/";
const REGISTER: &[u8] = b"/checker/register";

/// Shared by all clients: the clock, the counter of values, the history.
#[derive(Debug)]
pub(super) struct Recorder {
    start: Instant,
    next: AtomicU64,
    history: Mutex<History>,
    leader: Mutex<Option<String>>,
}

impl Recorder {
    pub(super) fn new(start: Instant) -> Self {
        Self { start, next: AtomicU64::new(1), history: Mutex::default(), leader: Mutex::default() }
    }

    /// Microseconds since the beginning, starting at 1.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn value(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn record(&self, record: impl FnOnce(&mut History)) {
        record(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn history(&self) -> History {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Last known leader.
    pub(super) fn leader(&self) -> Option<String> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Client of one node.
#[derive(Clone)]
pub(super) struct Client {
    node: String,
    access: Access,
    operator: OperatorClient<Channel>,
    etcd: MemberClient,
    recorder: Arc<Recorder>,
}

/// Operation that a client repeats.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operation {
    WriteTokens,
    ReadTokens,
    WriteEtcd,
    ReadEtcd,
    ReadMembers,
}

impl Operation {
    pub(super) const ALL: [Self; 5] =
        [Self::WriteTokens, Self::ReadTokens, Self::WriteEtcd, Self::ReadEtcd, Self::ReadMembers];
}

impl Client {
    pub(super) fn new(node: &str, access: &Access, recorder: &Arc<Recorder>) -> Self {
        Self {
            node: node.to_owned(),
            access: access.clone(),
            operator: access.operator(node),
            etcd: access.etcd(node),
            recorder: Arc::clone(recorder),
        }
    }

    /// Works until `stop`. A call in progress is finished.
    pub(super) async fn work(mut self, work: Operation, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let done = match work {
                Operation::WriteTokens => self.write_token().await,
                Operation::ReadTokens => self.read_tokens().await,
                Operation::WriteEtcd => self.write_etcd().await,
                Operation::ReadEtcd => self.read_etcd().await,
                Operation::ReadMembers => self.read_members().await,
            };
            if done.is_err() {
                // The address may have changed, and etcd's client has a fixed one.
                self.etcd = self.access.etcd(&self.node);
            }
            sleep(if done.is_ok() { PAUSE } else { PAUSE_AFTER_FAILURE }).await;
        }
    }

    /// Reads everything once more.
    pub(super) async fn read_all(&mut self) -> Result<()> {
        self.etcd = self.access.etcd(&self.node);
        self.read_tokens().await?;
        self.read_keys().await?;
        self.read_register().await?;
        self.read_members().await
    }

    async fn write_token(&mut self) -> Result<()> {
        let (value, token) = (self.recorder.value(), Token::generate());
        let request = CreateTokenRequest {
            id: token.id().to_string(),
            verifier: token.verifier().to_bytes().to_vec(),
            roles: vec![muster_messages::hello::NodeRole::Worker.into()],
            description: value.to_string(),
            ..CreateTokenRequest::default()
        };
        let began = self.recorder.now();
        let answer = with_timeout(self.operator.create_token(request)).await;
        self.record_write(value, began, answer.is_ok(), |history| &mut history.tokens.writes);
        answer.map(|_| ())
    }

    async fn write_etcd(&mut self) -> Result<()> {
        let value = self.recorder.value();
        let key = [KEYS, value.to_string().as_bytes()].concat();
        let began = self.recorder.now();
        let answer = with_timeout(self.etcd.put(&key, b"")).await;
        self.record_write(value, began, answer.is_ok(), |history| &mut history.keys.writes);
        answer?;
        let value = self.recorder.value();
        let began = self.recorder.now();
        let answer = with_timeout(self.etcd.put(REGISTER, value.to_string().as_bytes())).await;
        self.record_write(value, began, answer.is_ok(), |history| &mut history.register.writes);
        answer.map(|_| ())
    }

    fn record_write(
        &self,
        value: u64,
        began: u64,
        is_acknowledged: bool,
        of: impl FnOnce(&mut History) -> &mut Vec<Write>,
    ) {
        let acknowledged = is_acknowledged.then(|| self.recorder.now());
        let write = Write { value, began, acknowledged, node: self.node.clone() };
        self.recorder.record(|history| of(history).push(write));
    }

    async fn read_tokens(&mut self) -> Result<()> {
        let began = self.recorder.now();
        let answer =
            with_timeout(self.operator.list_tokens(ListTokensRequest {})).await?.into_inner();
        let ours = answer.tokens.iter().filter(|token| !token.founding);
        let seen: BTreeSet<u64> = ours.map(|token| number(&token.description)).collect();
        let read = self.read(seen, began);
        self.recorder.record(|history| history.tokens.reads.push(read));
        Ok(())
    }

    async fn read_etcd(&mut self) -> Result<()> {
        self.read_keys().await?;
        self.read_register().await
    }

    async fn read_keys(&mut self) -> Result<()> {
        let began = self.recorder.now();
        let found = with_timeout(self.etcd.list(KEYS)).await?;
        let names = found.iter().map(|(key, _)| String::from_utf8_lossy(&key[KEYS.len()..]));
        let seen: BTreeSet<u64> = names.map(|name| number(&name)).collect();
        let read = self.read(seen, began);
        self.recorder.record(|history| history.keys.reads.push(read));
        Ok(())
    }

    async fn read_register(&mut self) -> Result<()> {
        let began = self.recorder.now();
        let found = with_timeout(self.etcd.get(REGISTER)).await?;
        let seen = found.map(|value| number(&String::from_utf8_lossy(&value)));
        let read = self.read(seen, began);
        self.recorder.record(|history| history.register.reads.push(read));
        Ok(())
    }

    fn read<T>(&self, seen: T, began: u64) -> Read<T> {
        Read { seen, began, ended: self.recorder.now(), node: self.node.clone() }
    }

    async fn read_members(&mut self) -> Result<()> {
        let answer = with_timeout(self.operator.members(MembersRequest {})).await?.into_inner();
        if !answer.stale && !answer.leader.is_empty() {
            *self.recorder.leader.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(answer.leader);
        }
        let report = ClusterIdReport {
            node: self.node.clone(),
            cluster: answer.cluster_id,
            at: self.recorder.now(),
        };
        self.recorder.record(|history| history.cluster_ids.push(report));
        Ok(())
    }
}

/// Returns the written value, or a number that is never written.
fn number(text: &str) -> u64 {
    text.parse().unwrap_or(u64::MAX)
}

async fn with_timeout<T, E: std::error::Error + Send + Sync + 'static>(
    call: impl Future<Output = Result<T, E>>,
) -> Result<T> {
    Ok(timeout(CALL_TIMEOUT, call).await.context("no answer in time")??)
}
