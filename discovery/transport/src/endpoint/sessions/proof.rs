//! Life of a hello session on the listener's side: the phase in which it must prove, then its idle
//! timeout. The session's [`SessionAuthorizer`] decides the proof.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::endpoint::auth::{AuthState, SessionAuthorizer};
use crate::endpoint::close::{CloseCode, DisconnectReason};
use crate::endpoint::parameters::{HELLO_IDLE_TIMEOUT, PROOF_TIMEOUT};

/// Time that a denied session stays open, so that the reply reaches the peer.
const DENIED_CLOSE_DELAY: Duration = Duration::from_millis(200);

/// Hello session that is being watched.
#[derive(Debug)]
pub(crate) struct WatchedSession<A> {
    pub(crate) connection: quinn::Connection,
    pub(crate) auth: A,
    /// Notified of every call.
    pub(crate) activity: watch::Sender<()>,
}

/// Outcome of the proof phase of a hello session.
#[derive(Debug)]
pub(crate) enum ProofOutcome {
    Authenticated,
    /// Closed; `denied` is true if a wrong proof was the cause.
    Closed {
        denied: bool,
    },
}

impl<A: SessionAuthorizer> WatchedSession<A> {
    /// Waits until the session is authenticated; closes it on timeout or a wrong proof.
    pub(crate) async fn await_proof(&self) -> ProofOutcome {
        let mut state = self.auth.state();
        let changed = state.wait_for(|state| *state != AuthState::Pending);
        let state = tokio::select! {
            biased;
            _ = self.connection.closed() => return ProofOutcome::Closed { denied: false },
            changed = timeout(PROOF_TIMEOUT, changed) => match changed {
                Ok(Ok(state)) => *state,
                Ok(Err(_)) | Err(_) => AuthState::Pending,
            },
        };
        match state {
            AuthState::Authenticated => return ProofOutcome::Authenticated,
            AuthState::Pending => CloseCode::ProofTimeout.close(&self.connection),
            AuthState::Denied => close_after_flush(&self.connection).await,
        }
        ProofOutcome::Closed { denied: state == AuthState::Denied }
    }

    /// Waits until an authenticated session ends, is denied later or has been idle too long.
    pub(crate) async fn until_ended(&self) -> DisconnectReason {
        let (mut state, mut activity) = (self.auth.state(), self.activity.subscribe());
        loop {
            let is_denied = tokio::select! {
                biased;
                reason = self.connection.closed() => return DisconnectReason::of(&reason),
                _ = state.wait_for(|state| *state == AuthState::Denied) => true,
                called = timeout(HELLO_IDLE_TIMEOUT, activity.changed()) => {
                    if called.is_ok() {
                        continue;
                    }
                    false
                }
            };
            if is_denied {
                close_after_flush(&self.connection).await;
                return DisconnectReason::new("a later proof was wrong");
            }
            CloseCode::Done.close(&self.connection);
            return DisconnectReason::new("the session was idle");
        }
    }
}

/// Closes the connection after a delay that lets the last reply out.
async fn close_after_flush(connection: &quinn::Connection) {
    if timeout(DENIED_CLOSE_DELAY, connection.closed()).await.is_err() {
        CloseCode::Denied.close(connection);
    }
}
