//! Client of the operator API. Any node of the cluster can answer.
//!
//! The first contact is over QUIC: it proves the shared token, and learns and pins the cluster's
//! trust anchor. Every call after that is gRPC over mutual TLS.

mod bootstrap;
mod endpoint;
mod error;
mod session;

use std::time::Duration;

use muster_services::operator::operator_client::OperatorClient;
use muster_types::wire::NODE_METADATA;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

pub(crate) use self::endpoint::parse as parse_endpoint;
pub(crate) use self::error::{Attempt, CallError, FailureKind, UnformedNode};
use self::session::Session;
use crate::context::Context;

/// Entry point of the fuzz target for the reply to the first contact.
#[cfg(test)]
pub(crate) fn read_anchor(reply: muster_messages::hello::AnchorReply) -> Result<(), String> {
    bootstrap::parse_reply("10.0.0.1", reply).map(drop)
}

/// Default timeout of one call; `--timeout` overrides it.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit for retries while the cluster answers "not now". An election takes about two seconds.
const RETRY_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval between two such retries.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Generated gRPC client over the current connection.
pub(crate) type Client = OperatorClient<Channel>;

/// Effect of repeating a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// Same effect as one call.
    Idempotent,
    /// Possibly harmful: never repeated once it was sent and its reply lost.
    NonIdempotent,
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
    pub(crate) fn has_target_node(&self) -> bool {
        self.node.is_some()
    }

    /// Keeps only the node that `--node` names; without `--node`, all of them.
    pub(crate) async fn keep_target_node<T>(
        &mut self,
        nodes: Vec<T>,
        name_of: impl Fn(&T) -> &str,
    ) -> Result<Vec<T>, CallError> {
        let Some(wanted) = self.target_node_name("list the members").await? else {
            return Ok(nodes);
        };
        Ok(nodes.into_iter().filter(|node| name_of(node) == wanted).collect())
    }

    /// Resolves `--node`, a name or an id, to the member's name.
    async fn target_node_name(&mut self, what: &'static str) -> Result<Option<String>, CallError> {
        let wanted = self.node.as_ref().and_then(|node| node.to_str().ok()).map(str::to_owned);
        let Some(wanted) = wanted else { return Ok(None) };
        let members = crate::command::members::list_members_for(self, what).await?.members;
        match members.into_iter().find(|m| m.name == wanted || m.id == wanted) {
            Some(member) => Ok(Some(member.name)),
            None => Err(CallError::NoSuchNode { node: wanted }),
        }
    }

    /// Fixes the target node of the next calls: the one that `--node` names, otherwise the one that
    /// answers now. Later calls name it, even if another node takes them. Returns its name. `what`
    /// completes "could not …".
    pub(crate) async fn fix_target_node(
        &mut self,
        what: &'static str,
    ) -> Result<String, CallError> {
        let name = match self.target_node_name(what).await? {
            Some(name) => name,
            None => crate::command::version::fetch_version_for(self, what).await?.node,
        };
        let node = name.parse().map_err(|_| CallError::InvalidReply {
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
        kind: CallKind,
        what: &'static str,
        message: Q,
        call: impl AsyncFn(&mut Client, Request<Q>) -> Result<Response<R>, Status>,
    ) -> Result<R, CallError> {
        let deadline = Instant::now() + self.timeout;
        let retry_until = Instant::now() + RETRY_TIMEOUT.min(self.timeout);
        loop {
            let error = match self.try_endpoints((kind, what), &message, &call, deadline).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            if !matches!(error, CallError::NotReady { .. })
                || Instant::now() + RETRY_INTERVAL > retry_until
            {
                return Err(error);
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    /// Tries one endpoint after the other until one gives a final answer.
    async fn try_endpoints<Q: Clone, R>(
        &mut self,
        (kind, what): (CallKind, &'static str),
        message: &Q,
        call: &impl AsyncFn(&mut Client, Request<Q>) -> Result<Response<R>, Status>,
        deadline: Instant,
    ) -> Result<R, CallError> {
        let mut attempts = Vec::new();
        let mut retry_later = None;
        let mut endpoints = self.endpoints_to_try().into_iter();
        loop {
            let mut session = match self.session.take() {
                Some(session) => session,
                None => match endpoints.next() {
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
            match error::classify(&status, kind, what, &endpoint) {
                error::NextStep::TryNext(attempt) => attempts.push(attempt),
                error::NextStep::RetryLater(error) => retry_later = Some(error),
                error::NextStep::Fail(error) => {
                    self.session = Some(session);
                    return Err(error);
                }
            }
        }
        let given = !self.endpoints.is_empty();
        Err(retry_later.unwrap_or_else(|| CallError::unreachable(what, kind, attempts, given)))
    }

    /// Returns the endpoints to try, in order and without duplicates.
    fn endpoints_to_try(&self) -> Vec<String> {
        let description = &self.context.description;
        let mut endpoints = Vec::new();
        let known = description.endpoints.iter().chain(&description.learned);
        let given = self
            .endpoints
            .iter()
            .chain(self.endpoints.is_empty().then_some(known).into_iter().flatten());
        for endpoint in given {
            if !endpoints.contains(endpoint) {
                endpoints.push(endpoint.clone());
            }
        }
        endpoints
    }

    /// Opens a session with one endpoint. Pins the trust anchor first if there is none. The outer
    /// error ends the call; after the inner one the next endpoint is tried.
    async fn open(
        &mut self,
        endpoint: &str,
        deadline: Instant,
    ) -> Result<Result<Session, Attempt>, CallError> {
        if self.context.anchor()?.is_none() {
            let endpoints = self.endpoints_to_try();
            let anchor = bootstrap::learn_anchor(&self.context, &endpoints, deadline).await?;
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
const fn is_retryable(code: Code) -> bool {
    matches!(code, Code::Unavailable)
}
