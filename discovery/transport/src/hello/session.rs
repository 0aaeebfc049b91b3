//! State of one `muster-hello/1` session on the listener's side: the inputs that a proof must bind,
//! and the result of the proof.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use muster_pki::proof::Transcript;
use muster_pki::token::TokenId;
use tokio::sync::watch;
use tonic::Status;

use crate::endpoint::{AuthState, ChannelBinding, SessionAuthorizer};

/// Calls that need no proof: the proof itself, and the renewal of a member known by its key.
const CALLS_BEFORE_PROOF: [&str; 2] =
    ["/muster.hello.v1.Hello/Prove", "/muster.hello.v1.Hello/Renew"];

/// Number of calls that a session may make before it has proved the token.
const MAX_CALLS_BEFORE_PROOF: u32 = 8;

/// Handle to the session that a request came over. The endpoint puts it into the request's
/// extensions.
#[derive(Clone)]
pub struct Session(Arc<Shared>);

struct Shared {
    binding: ChannelBinding,
    state: watch::Sender<AuthState>,
    /// Token of the latest correct proof.
    token: Mutex<Option<TokenId>>,
    calls: AtomicU32,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("dialer", &self.0.binding.dialer)
            .field("state", &*self.0.state.borrow())
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(binding: ChannelBinding) -> Self {
        let state = watch::Sender::new(AuthState::Pending);
        let (token, calls) = (Mutex::default(), AtomicU32::new(0));
        Self(Arc::new(Shared { binding, state, token, calls }))
    }

    /// Returns the session that a request came over.
    ///
    /// # Errors
    /// INTERNAL when the request did not come through the endpoint.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<&Self, Status> {
        request
            .extensions()
            .get()
            .ok_or_else(|| Status::internal("the request did not come over a hello session"))
    }

    /// Returns the inputs that a proof of this token must bind.
    pub(crate) fn transcript(&self, token: TokenId) -> Transcript {
        transcript(&self.0.binding, token)
    }

    /// Returns the token that the peer has proved.
    pub fn proven_token(&self) -> Option<TokenId> {
        match *self.0.state.borrow() {
            AuthState::Authenticated => {
                self.0.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
            }
            AuthState::Pending | AuthState::Denied => None,
        }
    }

    /// Records a correct proof. Returns false if the session was denied: it stays denied.
    pub(crate) fn authenticate(&self, token: TokenId) -> bool {
        self.0.state.send_if_modified(|state| {
            let may = *state != AuthState::Denied;
            if may {
                *self.0.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
                *state = AuthState::Authenticated;
            }
            may
        })
    }

    /// Records a wrong proof, permanently.
    pub(crate) fn deny(&self) {
        self.0.state.send_replace(AuthState::Denied);
    }
}

impl SessionAuthorizer for Session {
    fn may_call(&self, path: &str) -> bool {
        match *self.0.state.borrow() {
            AuthState::Authenticated => true,
            AuthState::Pending => {
                CALLS_BEFORE_PROOF.contains(&path)
                    && self.0.calls.load(Ordering::Relaxed) < MAX_CALLS_BEFORE_PROOF
            }
            AuthState::Denied => false,
        }
    }

    fn count_call(&self) {
        if *self.0.state.borrow() == AuthState::Pending {
            self.0.calls.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn state(&self) -> watch::Receiver<AuthState> {
        self.0.state.subscribe()
    }
}

/// Returns the inputs that a proof of this token must bind on this channel.
pub(crate) fn transcript(binding: &ChannelBinding, token: TokenId) -> Transcript {
    let ChannelBinding { exporter, dialer, listener } = *binding;
    Transcript { exporter, dialer, listener, token }
}

#[cfg(test)]
mod tests {
    use muster_pki::token::Token;
    use muster_types::PublicKey;

    use super::*;

    fn session() -> Session {
        Session::new(ChannelBinding {
            exporter: [1; 32],
            dialer: PublicKey::from_bytes([2; 32]),
            listener: PublicKey::from_bytes([3; 32]),
        })
    }

    #[test]
    fn only_prove_and_renew_need_no_proof() {
        let session = session();
        for (path, open) in [
            ("/muster.hello.v1.Hello/Prove", true),
            ("/muster.hello.v1.Hello/Renew", true),
            ("/muster.hello.v1.Hello/Greet", false),
            ("/muster.hello.v1.Hello/Join", false),
            ("/muster.hello.v1.Hello/Birth", false),
            ("/muster.hello.v1.Hello/Anchor", false),
            ("/muster.node.v1.Node/AppendEntries", false),
            ("/", false),
        ] {
            assert_eq!(session.may_call(path), open, "{path}");
        }
        assert!(session.authenticate(Token::generate().id().clone()));
        assert!(session.may_call("/muster.hello.v1.Hello/Greet"));
    }

    #[test]
    fn unauthenticated_peers_may_make_a_few_calls_only() {
        let session = session();
        for _ in 0..MAX_CALLS_BEFORE_PROOF {
            assert!(session.may_call("/muster.hello.v1.Hello/Renew"));
            session.count_call();
        }
        assert!(!session.may_call("/muster.hello.v1.Hello/Renew"));
    }

    #[test]
    fn a_denied_session_stays_denied() {
        let session = session();
        session.deny();
        assert!(!session.authenticate(Token::generate().id().clone()));
        assert_eq!(session.proven_token(), None);
        assert!(!session.may_call("/muster.hello.v1.Hello/Prove"));
    }
}
