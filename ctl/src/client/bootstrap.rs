//! First contact with a cluster over QUIC. Both sides prove that they hold the token, then the node
//! sends the cluster's trust anchor.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use muster_messages::hello::{AnchorReply, AnchorRequest, NodeRole};
use muster_pki::bundle::TrustBundle;
use muster_pki::identity::Identity;
use muster_pki::token::Token;
use muster_transport::endpoint::{Bind, Endpoint, Trust};
use muster_transport::hello::ProveError;
use muster_types::ClusterId;
use muster_types::error::chain;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::endpoint::resolve;
use super::error::{Attempt, CallError, CallKind, FailureKind, UnformedNode};
use crate::context::{Context, TrustAnchor};

/// Timeout of the whole exchange with one node.
const NODE_TIMEOUT: Duration = Duration::from_secs(4);

/// Extra time for the other nodes once one has reported that there is no cluster.
const STRAGGLER_TIMEOUT: Duration = Duration::from_secs(1);

/// Reason given for a node that does not answer.
const NO_ANSWER: &str = "no answer over QUIC (UDP, which only the first contact needs) in time";

/// Result of the exchange with one node.
enum BootstrapReply {
    Cluster(TrustAnchor),
    NotFormed(UnformedNode),
}

/// Asks all nodes concurrently. Returns the trust anchor of the first that belongs to a cluster.
pub(super) async fn learn_anchor(
    context: &Context,
    endpoints: &[String],
    deadline: Instant,
) -> Result<TrustAnchor, CallError> {
    let token = context.token()?.ok_or(CallError::NoToken)?;
    let identity = Arc::new(context.identity()?);
    let deadline = deadline.min(Instant::now() + NODE_TIMEOUT);
    let mut tasks = JoinSet::new();
    for endpoint in endpoints.iter().cloned() {
        let (token, identity) = (token.clone(), Arc::clone(&identity));
        tasks.spawn(async move {
            let outcome = timeout_at(deadline, query_node(&endpoint, identity, &token)).await;
            let outcome =
                outcome.unwrap_or_else(|_| Err((FailureKind::NoAnswer, NO_ANSWER.to_owned())));
            outcome.map_err(|(failure, why)| Attempt { endpoint, why, failure })
        });
    }
    let (mut waiting, mut attempts): (Vec<UnformedNode>, Vec<Attempt>) = (Vec::new(), Vec::new());
    // Every task ends by the deadline. Once a node has answered, the others get less time.
    let mut collect_until = deadline + STRAGGLER_TIMEOUT;
    while let Ok(Some(joined)) = timeout_at(collect_until, tasks.join_next()).await {
        match joined {
            Ok(Ok(BootstrapReply::Cluster(anchor))) => return Ok(anchor),
            Ok(Ok(BootstrapReply::NotFormed(node))) => {
                waiting.push(node);
                collect_until = collect_until.min(Instant::now() + STRAGGLER_TIMEOUT);
            }
            Ok(Err(attempt)) => attempts.push(attempt),
            // The task panicked, so the result for that endpoint is unknown.
            Err(_) => {}
        }
    }
    for endpoint in endpoints {
        let answered = waiting.iter().any(|node| node.endpoint == *endpoint)
            || attempts.iter().any(|attempt| attempt.endpoint == *endpoint);
        if !answered {
            let (endpoint, why) = (endpoint.clone(), NO_ANSWER.to_owned());
            attempts.push(Attempt { endpoint, why, failure: FailureKind::NoAnswer });
        }
    }
    if waiting.is_empty() {
        // Matters only for peers of another cluster, and no cluster is pinned yet.
        let given = false;
        return Err(CallError::unreachable(
            "contact the cluster",
            CallKind::Idempotent,
            attempts,
            given,
        ));
    }
    waiting.sort_by(|a, b| a.name.cmp(&b.name));
    attempts.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    Err(CallError::NoCluster { nodes: waiting, attempts })
}

/// Runs the whole exchange with one node, at each of its addresses in turn.
async fn query_node(
    endpoint: &str,
    identity: Arc<Identity>,
    token: &Token,
) -> Result<BootstrapReply, (FailureKind, String)> {
    let failed = |why: String| (FailureKind::NoAnswer, why);
    let mut outcome = Err(failed("has no address".to_owned()));
    for address in resolve(endpoint).await.map_err(failed)? {
        outcome = query_address(endpoint, address, Arc::clone(&identity), token).await;
        // A rejection is an answer. Only a node that does not answer is tried at its next address.
        if !matches!(outcome, Err((FailureKind::NoAnswer, _))) {
            break;
        }
    }
    outcome
}

async fn query_address(
    endpoint: &str,
    address: SocketAddr,
    identity: Arc<Identity>,
    token: &Token,
) -> Result<BootstrapReply, (FailureKind, String)> {
    let failed = |why: String| (FailureKind::NoAnswer, why);
    let from: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let trust = watch::Sender::new(Arc::new(Trust::default()));
    let bind = Bind { address: SocketAddr::new(from, 0), identity, trust: trust.subscribe() };
    // The listener is never run, so no connection is accepted.
    let (quic, _listener) = Endpoint::bind(bind).map_err(|e| failed(chain(&e)))?;
    let session = quic.dial_hello(address).await.map_err(|e| failed(chain(&e)))?;
    session.prove(token).await.map_err(|error| match error {
        ProveError::Rejected { token, .. } => (
            FailureKind::Rejected,
            format!(
                "it does not accept this context's token {token}: revoked, expired, used up, or of \
                 another cluster; use a context that has contacted the cluster, or put a new token \
                 (`musterctl token create`) into the context's file `token`"
            ),
        ),
        ProveError::Impostor { .. } => (FailureKind::Rejected, chain(&error)),
        ProveError::Failed { .. } => (FailureKind::NoAnswer, chain(&error)),
    })?;
    let reply = session.client().anchor(AnchorRequest {}).await;
    let reply = reply.map_err(|status| failed(status.message().to_owned()))?;
    parse_reply(endpoint, reply.into_inner()).map_err(failed)
}

fn parse_reply(endpoint: &str, reply: AnchorReply) -> Result<BootstrapReply, String> {
    let AnchorReply { node, cluster_id, machine_authorities, .. } = reply;
    let node = node.ok_or("reply without a node")?;
    if cluster_id.is_empty() {
        return Ok(BootstrapReply::NotFormed(UnformedNode {
            endpoint: endpoint.to_owned(),
            name: node.name,
            role: NodeRole::word_of(node.role),
            version: node.version,
            waiting_for: node.waiting_for,
        }));
    }
    let cluster_id = ClusterId::try_from(cluster_id.as_slice()).map_err(|e| e.to_string())?;
    if machine_authorities.is_empty() {
        // The cluster exists, but its authorities are not created yet.
        return Ok(BootstrapReply::NotFormed(UnformedNode {
            endpoint: endpoint.to_owned(),
            name: node.name,
            role: NodeRole::word_of(node.role),
            version: node.version,
            waiting_for: match node.waiting_for.as_str() {
                "" => "the cluster's authorities to be created".to_owned(),
                said => said.to_owned(),
            },
        }));
    }
    let authorities = TrustBundle::from_der(machine_authorities).map_err(|e| chain(&e))?;
    Ok(BootstrapReply::Cluster(TrustAnchor { cluster_id, authorities }))
}

#[cfg(test)]
mod fuzz;
