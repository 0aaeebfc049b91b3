//! Authorisation of every call before its body is read. On `muster-node/1` the caller must still be
//! a member and its role must allow the call. On `muster-hello/1` the session's [`SessionAuthorizer`] must allow it.

use std::net::SocketAddr;
use std::sync::Arc;

use muster_types::Role;
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::caller::Caller;
use super::http2::Authorize;
use crate::endpoint::auth::{RejectReason, Rejection, SessionAuthorizer};
use crate::endpoint::tls::handshake::PeerKey;
use crate::endpoint::tls::trust::Trust;

/// Calls of `muster-node/1` that a worker may make. All others are rejected here, because a message
/// is decoded as a whole before the service sees its sender.
const WORKER_CALLS: [&str; 2] = ["/muster.node.v1.Node/Report", "/muster.node.v1.Node/Watch"];

/// Largest request of a worker, in bytes. A report is far smaller, and a worker may have hundreds
/// of requests in flight.
pub(crate) const MAX_WORKER_REQUEST: usize = 16 << 10;

/// Authorises the calls of a member.
#[derive(Debug, Clone)]
pub(crate) struct NodeGuard {
    pub(crate) peer: PeerKey,
    pub(crate) connection: quinn::Connection,
    pub(crate) trust: watch::Receiver<Arc<Trust>>,
    pub(crate) rejections: Option<mpsc::Sender<Rejection>>,
}

/// Authorises the calls of a hello session.
#[derive(Debug, Clone)]
pub(crate) struct HelloGuard<A> {
    pub(crate) peer: PeerKey,
    pub(crate) connection: quinn::Connection,
    pub(crate) trust: watch::Receiver<Arc<Trust>>,
    pub(crate) auth: A,
    /// Notified of every call: the session is in use.
    pub(crate) activity: watch::Sender<()>,
}

impl PeerKey {
    fn caller(&self, role: Option<Role>, connection: &quinn::Connection) -> Caller {
        let Self { node_id, public_key } = *self;
        let at = connection.remote_address();
        let remote = SocketAddr::new(at.ip().to_canonical(), at.port());
        Caller { node_id, public_key, role, remote }
    }

    fn role(&self, trust: &watch::Receiver<Arc<Trust>>) -> Option<Role> {
        trust.borrow().directory.get(&self.node_id).map(|member| member.role)
    }
}

fn denied() -> Status {
    Status::permission_denied("")
}

impl Authorize for NodeGuard {
    fn authorize<B>(&self, mut request: http::Request<B>) -> Result<http::Request<B>, Box<Status>> {
        let role = self.peer.role(&self.trust).ok_or_else(|| Box::new(denied()))?;
        if role == Role::Worker && !WORKER_CALLS.contains(&request.uri().path()) {
            let why = "only control-plane members may call this";
            if let Some(rejections) = &self.rejections {
                let Caller { remote, public_key, .. } = self.peer.caller(None, &self.connection);
                let reason = RejectReason::NotForWorkers;
                // Dropped when the queue is full: a call never waits for the audit log.
                rejections.try_send(Rejection { remote, public_key, token: None, reason }).ok();
            }
            return Err(Box::new(Status::permission_denied(why)));
        }
        request.extensions_mut().insert(self.peer.caller(Some(role), &self.connection));
        Ok(request)
    }

    fn max_request(&self) -> Option<usize> {
        let is_worker = self.peer.role(&self.trust) != Some(Role::ControlPlane);
        is_worker.then_some(MAX_WORKER_REQUEST)
    }
}

impl<A: SessionAuthorizer> Authorize for HelloGuard<A> {
    fn authorize<B>(&self, mut request: http::Request<B>) -> Result<http::Request<B>, Box<Status>> {
        if !self.auth.may_call(request.uri().path()) {
            return Err(Box::new(denied()));
        }
        self.auth.count_call();
        self.activity.send_replace(());
        let role = self.peer.role(&self.trust);
        let extensions = request.extensions_mut();
        extensions.insert(self.peer.caller(role, &self.connection));
        extensions.insert(self.auth.clone());
        Ok(request)
    }
}
