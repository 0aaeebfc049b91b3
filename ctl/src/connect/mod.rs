//! The way to a cluster: any node that answers will do.
//!
//! The first contact is over QUIC, where the shared token is proved and the cluster's trust anchor
//! learned and pinned. Every call after that is gRPC over mutual TLS.

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

/// What the fuzz target of the first contact's answer calls.
#[cfg(test)]
pub(crate) fn read_anchor(reply: muster_messages::hello::AnchorReply) -> Result<(), String> {
    first::read("10.0.0.1", reply).map(drop)
}

/// How long one call may take unless `--timeout` says otherwise.
pub(crate) const CALL: Duration = Duration::from_secs(10);

/// How long a cluster that answers "not now" is asked again: elections take about two seconds.
const NOT_NOW: Duration = Duration::from_secs(5);

/// Between two such attempts.
const AGAIN: Duration = Duration::from_millis(250);

/// The generated client over whatever connection there is.
pub(crate) type Client = OperatorClient<Channel>;

/// What a repetition of a call would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The same as once.
    Idempotent,
    /// Perhaps harm: never repeated once it was sent and its answer lost.
    Once,
}

/// The operator API of the cluster of one context.
pub(crate) struct Api {
    context: Context,
    /// Given on the command line: asked instead of what the context knows.
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
        // A node's name and id are checked when arguments are read.
        let node = node.and_then(|node| node.parse().ok());
        Self { context, endpoints, node, timeout, session: None }
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// How long one call may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Limits the next calls.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Whether `--node` names one.
    pub(crate) fn is_about_one_node(&self) -> bool {
        self.node.is_some()
    }

    /// Of `nodes`, the one that `--node` names; all of them if it names none.
    pub(crate) async fn only_named<T>(
        &mut self,
        nodes: Vec<T>,
        name_of: impl Fn(&T) -> &str,
    ) -> Result<Vec<T>, CallError> {
        let Some(wanted) = self.named("list the members").await? else { return Ok(nodes) };
        Ok(nodes.into_iter().filter(|node| name_of(node) == wanted).collect())
    }

    /// The name of the member that `--node` names by its name or its id.
    async fn named(&mut self, what: &'static str) -> Result<Option<String>, CallError> {
        let wanted = self.node.as_ref().and_then(|node| node.to_str().ok()).map(str::to_owned);
        let Some(wanted) = wanted else { return Ok(None) };
        let members = crate::command::members::ask_to(self, what).await?.members;
        match members.into_iter().find(|m| m.name == wanted || m.id == wanted) {
            Some(member) => Ok(Some(member.name)),
            None => Err(CallError::NoSuchNode { node: wanted }),
        }
    }

    /// The name of the node that the next calls are about: the one that `--node` names, else the one
    /// that answers now. They name it from now on, whichever node takes them. `what` completes "could
    /// not …".
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

    /// Where the connection of the last call led to.
    pub(crate) fn endpoint(&self) -> &str {
        self.session.as_ref().map_or("", Session::endpoint)
    }

    /// Keeps what the cluster has told of its control plane. Failing to is no failure of the call.
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

    /// Asks one endpoint after the other until one gives an answer that is worth something.
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

    /// The endpoints to ask, in order, each once.
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

    /// A session with one endpoint; before the first, the trust anchor is pinned. The outer error
    /// ends the call, the inner one goes on to the next endpoint.
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

/// Whether a server's code means that another node, or the same one later, may do better.
const fn is_not_now(code: Code) -> bool {
    matches!(code, Code::Unavailable)
}
