//! Session that this node dialled with a peer that no certificate authenticates. It carries calls and
//! the facts that a proof must bind; the protocol on top proves.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;

use muster_types::PublicKey;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::endpoint::auth::ChannelBinding;
use crate::endpoint::close::CloseCode;
use crate::endpoint::connections::dead_peer::{
    CHECK_INTERVAL, Counters, DeadPeerDetector, max_silent_samples,
};
use crate::endpoint::rpc::http2::{Limits, StreamChannel, Tasks, connect, stream};
use crate::endpoint::tls::handshake::{Handshake, exporter};

/// Session with a listener on `muster-hello/1`. It closes when dropped, and about three seconds
/// after the listener falls silent.
pub struct DialledSession {
    connection: quinn::Connection,
    binding: ChannelBinding,
    channel: StreamChannel,
    _tasks: DropGuard,
}

impl fmt::Debug for DialledSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialledSession")
            .field("binding", &self.binding)
            .field("remote", &self.remote())
            .finish_non_exhaustive()
    }
}

impl Drop for DialledSession {
    fn drop(&mut self) {
        CloseCode::Done.close(&self.connection);
    }
}

impl DialledSession {
    pub(crate) async fn open(
        handshake: Handshake,
        me: PublicKey,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let Handshake { connection, peer, .. } = handshake;
        let exporter = exporter(&connection).ok_or("the session has no keying material")?;
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone());
        let (send, receive) = connection.open_bi().await?;
        let sender = connect(stream(send, receive), Limits::HELLO, tasks.clone()).await?;
        hyper::rt::Executor::execute(&tasks, close_when_silent(connection.clone()));
        let channel = StreamChannel { sender, connection: connection.clone() };
        let binding = ChannelBinding { exporter, dialer: me, listener: peer.public_key };
        Ok(Self { connection, binding, channel, _tasks: stop.drop_guard() })
    }

    /// Returns the facts that a proof must bind. The listener's key was proved in the handshake.
    pub fn binding(&self) -> &ChannelBinding {
        &self.binding
    }

    pub fn remote(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Returns the session for generated clients. A call obeys the deadline that
    /// `tonic::Request::set_timeout` sets.
    pub fn channel(&self) -> StreamChannel {
        self.channel.clone()
    }

    /// Returns true if the session has ended.
    pub fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Ends the session because the listener's proof was wrong.
    pub fn deny(&self) {
        CloseCode::Denied.close(&self.connection);
    }
}

/// Closes a silent connection. [`crate::endpoint::connections`] watches only those to members.
pub(crate) async fn close_when_silent(connection: quinn::Connection) {
    let mut check_timer = tokio::time::interval(CHECK_INTERVAL);
    check_timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut detector = DeadPeerDetector::new(Counters::of(&connection));
    while connection.close_reason().is_none() {
        check_timer.tick().await;
        if detector.sample(Counters::of(&connection)) >= max_silent_samples(connection.rtt()) {
            CloseCode::Silent.close(&connection);
        }
    }
}
