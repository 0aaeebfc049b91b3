//! Connection to one member, its client lanes, and its state as callers see it. Opens streams;
//! never dials.

use std::error::Error;
use std::sync::Arc;

use muster_types::error::chain;
use tokio::sync::OnceCell;
use tonic::Status;

use crate::endpoint::close::{CloseCode, DisconnectReason};
use crate::endpoint::rpc::http2::{Limits, StreamChannel, Tasks, connect, stream};

/// Stream of the connection that a call uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Small calls that must not wait.
    Calls,
    /// Snapshots and other bulk transfers, on a separate stream with lower priority.
    Bulk,
}

/// Connection state of one peer, published by the endpoint's task.
#[derive(Debug, Clone)]
pub(crate) struct PeerConnectionState {
    /// Number of failed dials, so that a caller waiting for a dial sees it fail.
    pub(crate) failed_dials: u64,
    pub(crate) link: Result<Arc<PeerConnection>, DisconnectReason>,
}

impl PeerConnectionState {
    pub(crate) fn usable(&self) -> Option<&Arc<PeerConnection>> {
        self.link.as_ref().ok().filter(|link| link.is_usable())
    }
}

/// Connection to a member with its client lanes, which open on first use.
#[derive(Debug)]
pub(crate) struct PeerConnection {
    connection: quinn::Connection,
    tasks: Tasks,
    calls: OnceCell<StreamChannel>,
    bulk: OnceCell<StreamChannel>,
}

impl PeerConnection {
    pub(crate) fn new(connection: quinn::Connection, tasks: Tasks) -> Self {
        Self { connection, tasks, calls: OnceCell::new(), bulk: OnceCell::new() }
    }

    pub(crate) fn connection(&self) -> &quinn::Connection {
        &self.connection
    }

    fn is_usable(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    pub(crate) async fn lane(&self, lane: Lane) -> Result<StreamChannel, Status> {
        let (slot, priority) = match lane {
            Lane::Calls => (&self.calls, 1),
            Lane::Bulk => (&self.bulk, 0),
        };
        let open = async || {
            let (send, receive) =
                self.connection.open_bi().await.map_err(|e| {
                    DisconnectReason::of(&e).status(self.connection.remote_address())
                })?;
            send.set_priority(priority).map_err(|e| unavailable(&e))?;
            let sender = connect(stream(send, receive), Limits::NODE, self.tasks.clone())
                .await
                .map_err(|e| unavailable(&e))?;
            Ok::<_, Status>(StreamChannel { sender, connection: self.connection.clone() })
        };
        let call = slot.get_or_try_init(open).await?;
        if call.sender.is_closed() {
            // HTTP/2 failed on a live connection. Close it and dial again rather than repair it.
            CloseCode::ProtocolError.close(&self.connection);
        }
        Ok(call.clone())
    }
}

fn unavailable(error: &dyn Error) -> Status {
    Status::unavailable(chain(error))
}
