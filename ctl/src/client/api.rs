//! Calls to the first node that answers. Opens a session, tries the next endpoint, retries later; does
//! not decide what a failure means.

use std::time::Duration;

use muster_types::wire::NODE_METADATA;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Response, Status};

use super::bootstrap;
use super::classify::{NextStep, classify};
use super::error::{Attempt, CallError, CallKind};
use super::session::{Client, Session};
use crate::context::Context;

/// Default timeout of one call; `--timeout` overrides it.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit for retries while the cluster answers "not now". An election takes about two seconds.
const RETRY_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval between two such retries.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Operator API of the cluster of one context.
pub(crate) struct Api {
    context: Context,
    /// Endpoints from the command line; they replace those of the context.
    endpoints: Vec<String>,
    /// Node that the calls are about.
    pub(super) node: Option<MetadataValue<Ascii>>,
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

    /// Endpoint of the last call's connection; empty if there is none.
    pub(crate) fn endpoint(&self) -> &str {
        self.session.as_ref().map_or("", Session::endpoint)
    }

    /// Error for a reply that no correct node sends.
    pub(crate) fn invalid_reply(&self, message: &str) -> CallError {
        CallError::InvalidReply {
            endpoint: self.endpoint().to_owned(),
            message: message.to_owned(),
        }
    }

    /// Saves the control-plane addresses that the cluster reported. A failure to save is ignored.
    pub(crate) fn learn(&mut self, addresses: Vec<String>) {
        self.context.learn(addresses).ok();
    }

    /// Calls the first node that answers. `what` completes "could not …". An answer "not now" is the
    /// result if the time is over before another one comes.
    pub(crate) async fn call<Q: Clone, R>(
        &mut self,
        kind: CallKind,
        what: &'static str,
        message: Q,
        call: impl AsyncFn(&mut Client, Request<Q>) -> Result<Response<R>, Status>,
    ) -> Result<R, CallError> {
        let deadline = Instant::now() + self.timeout;
        let retry_until = Instant::now() + RETRY_TIMEOUT.min(self.timeout);
        let mut not_ready = None;
        loop {
            match self.try_endpoints((kind, what), &message, &call, deadline).await {
                Ok(reply) => return Ok(reply),
                Err(error @ CallError::NotReady { .. }) => not_ready = Some(error),
                Err(CallError::Unreachable { .. })
                    if Instant::now() + RETRY_INTERVAL > deadline
                        && let Some(error) = not_ready.take() =>
                {
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
            if Instant::now() + RETRY_INTERVAL > retry_until
                && let Some(error) = not_ready.take()
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
            match classify(&status, kind, what, &endpoint) {
                NextStep::TryNext(attempt) => attempts.push(attempt),
                NextStep::RetryLater(error) => retry_later = Some(error),
                NextStep::Fail(error) => {
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
