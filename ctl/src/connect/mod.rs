//! Client of the operator API. Any node of the cluster can answer.
//!
//! The first contact is over QUIC: it proves the shared token, and learns and pins the cluster's
//! trust anchor. Every call after that is gRPC over mutual TLS.

mod endpoint;
mod error;
mod first;
mod session;

use std::time::Duration;

use muster_services::operator::operator_client::OperatorClient;
use muster_types::wire::NODE_METADATA;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

pub(crate) use self::endpoint::parse as parse_endpoint;
pub(crate) use self::error::{Attempt, CallError, Miss, Waiting};
use self::session::Session;
use crate::context::Context;

/// Entry point of the fuzz target for the reply to the first contact.
#[cfg(test)]
pub(crate) fn read_anchor(reply: muster_messages::hello::AnchorReply) -> Result<(), String> {
    first::read("10.0.0.1", reply).map(drop)
}

/// Default timeout of one call; `--timeout` overrides it.
pub(crate) const CALL: Duration = Duration::from_secs(10);

/// Limit for retries while the cluster answers "not now". An election takes about two seconds.
const NOT_NOW: Duration = Duration::from_secs(5);

/// Interval between two such retries.
const AGAIN: Duration = Duration::from_millis(250);

/// Generated gRPC client over the current connection.
pub(crate) type Client = OperatorClient<Channel>;

/// Effect of repeating a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Same effect as one call.
    Idempotent,
    /// Possibly harmful: never repeated once it was sent and its reply lost.
    Once,
}

/// Operator API of the cluster of one context.
pub(crate) struct Api {
    context: Context,
    /// Endpoints from the command line; they replace those of the context.
    endpoints: Vec<String>,
    node: Option<MetadataValue<Ascii>>,
    timeout: Duration,
    session: Option<Session>,
}

impl Api {
    pub(crate) fn new(
        context: Context,
        endpoints: Vec<String>,
        node: Option<&str>,
        timeout: Duration,
    ) -> Self {
        // A node's name or id is validated when the arguments are parsed.
        let node = node.and_then(|node| node.parse().ok());
        Self { context, endpoints, node, timeout, session: None }
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Timeout of one call.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sets the timeout of the next calls.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Returns true if `--node` names a node.
    pub(crate) fn is_about_one_node(&self) -> bool {
        self.node.is_some()
    }

    /// Keeps only the node that `--node` names; without `--node`, all of them.
    pub(crate) async fn only_named<T>(
        &mut self,
        nodes: Vec<T>,
        name_of: impl Fn(&T) -> &str,
    ) -> Result<Vec<T>, CallError> {
        let Some(wanted) = self.named("list the members").await? else { return Ok(nodes) };
        Ok(nodes.into_iter().filter(|node| name_of(node) == wanted).collect())
    }

    /// Resolves `--node`, a name or an id, to the member's name.
    async fn named(&mut self, what: &'static str) -> Result<Option<String>, CallError> {
        let wanted = self.node.as_ref().and_then(|node| node.to_str().ok()).map(str::to_owned);
        let Some(wanted) = wanted else { return Ok(None) };
        let members = crate::command::members::ask_to(self, what).await?.members;
        match members.into_iter().find(|m| m.name == wanted || m.id == wanted) {
            Some(member) => Ok(Some(member.name)),
            None => Err(CallError::NoSuchNode { node: wanted }),
        }
    }

    /// Fixes the target node of the next calls: the one that `--node` names, otherwise the one that
    /// answers now. Later calls name it, even if another node takes them. Returns its name. `what`
    /// completes "could not …".
    pub(crate) async fn settle_node(&mut self, what: &'static str) -> Result<String, CallError> {
        let name = match self.named(what).await? {
            Some(name) => name,
            None => crate::command::version::ask_to(self, what).await?.node,
        };
        let node = name.parse().map_err(|_| CallError::Senseless {
            endpoint: self.endpoint().to_owned(),
            message: format!("its name is {name:?}"),
        })?;
        self.node = Some(node);
        Ok(name)
    }

    /// Endpoint of the last call's connection; empty if there is none.
    pub(crate) fn endpoint(&self) -> &str {
        self.session.as_ref().map_or("", Session::endpoint)
    }

    /// Saves the control-plane addresses that the cluster reported. A failure to save is ignored.
    pub(crate) fn learn(&mut self, addresses: Vec<String>) {
        self.context.learn(addresses).ok();
    }

    /// Calls the first node that answers. `what` completes "could not …".
    pub(crate) async fn call<Q: Clone, R>(
        &mut self,
        kind: Kind,
        what: &'static str,
        message: Q,
        call: impl AsyncFn(&mut Client, Request<Q>) -> Result<Response<R>, Status>,
    ) -> Result<R, CallError> {
        let deadline = Instant::now() + self.timeout;
        let patience = Instant::now() + NOT_NOW.min(self.timeout);
        loop {
            let error = match self.round((kind, what), &message, &call, deadline).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            if !matches!(error, CallError::NotReady { .. }) || Instant::now() + AGAIN > patience {
                return Err(error);
            }
            sleep(AGAIN).await;
        }
    }

    /// Tries one endpoint after the other until one gives a final answer.
    async fn round<Q: Clone, R>(
        &mut self,
        (kind, what): (Kind, &'static str),
        message: &Q,
        call: &impl AsyncFn(&mut Client, Request<Q>) -> Result<Response<R>, Status>,
        deadline: Instant,
    ) -> Result<R, CallError> {
        let mut attempts = Vec::new();
        let mut not_now = None;
        let mut candidates = self.candidates().into_iter();
        loop {
            let mut session = match self.session.take() {
                Some(session) => session,
                None => match candidates.next() {
                    Some(endpoint) => match self.open(&endpoint, deadline).await? {
                        Ok(session) => session,
                        Err(attempt) => {
                            attempts.push(attempt);
                            continue;
                        }
                    },
                    None => break,
                },
            };
            let request = self.request(message.clone(), deadline);
            let outcome = timeout_at(deadline, call(&mut session.client, request)).await;
            let endpoint = session.endpoint().to_owned();
            let status = match outcome {
                Ok(Ok(reply)) => {
                    self.session = Some(session);
                    return Ok(reply.into_inner());
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            match error::judge(&status, kind, what, &endpoint) {
                error::Verdict::Next(attempt) => attempts.push(attempt),
                error::Verdict::NotNow(error) => not_now = Some(error),
                error::Verdict::Final(error) => {
                    self.session = Some(session);
                    return Err(error);
                }
            }
        }
        let given = !self.endpoints.is_empty();
        Err(not_now.unwrap_or_else(|| CallError::unreachable(what, kind, attempts, given)))
    }

    /// Returns the endpoints to try, in order and without duplicates.
    fn candidates(&self) -> Vec<String> {
        let description = &self.context.description;
        let mut candidates = Vec::new();
        let known = description.endpoints.iter().chain(&description.learned);
        let given = self
            .endpoints
            .iter()
            .chain(self.endpoints.is_empty().then_some(known).into_iter().flatten());
        for endpoint in given {
            if !candidates.contains(endpoint) {
                candidates.push(endpoint.clone());
            }
        }
        candidates
    }

    /// Opens a session with one endpoint. Pins the trust anchor first if there is none. The outer
    /// error ends the call; after the inner one the next endpoint is tried.
    async fn open(
        &mut self,
        endpoint: &str,
        deadline: Instant,
    ) -> Result<Result<Session, Attempt>, CallError> {
        if self.context.anchor()?.is_none() {
            let candidates = self.candidates();
            let anchor = first::contact(&self.context, &candidates, deadline).await?;
            self.context.pin(&anchor)?;
        }
        let Some(anchor) = self.context.anchor()? else { return Err(CallError::NoEndpoint) };
        let identity = self.context.identity()?;
        Ok(Session::open(endpoint, &identity, &anchor, deadline).await)
    }

    fn request<Q>(&self, message: Q, deadline: Instant) -> Request<Q> {
        let mut request = Request::new(message);
        if let Some(node) = &self.node {
            request.metadata_mut().insert(NODE_METADATA, node.clone());
        }
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        request
    }
}

/// Returns true if another node, or the same one later, may succeed.
const fn is_not_now(code: Code) -> bool {
    matches!(code, Code::Unavailable)
}
