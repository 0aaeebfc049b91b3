//! State of one `muster-hello/1` session on the listener's side: the inputs that a proof must bind,
//! and the result of the proof.

use std::fmt;
use std::sync::Arc;

use muster_pki::proof::Transcript;
use muster_pki::token::TokenId;
use muster_types::PublicKey;
use tokio::sync::watch;
use tonic::Status;

/// Calls that need no proof: the proof itself, and the renewal of a member known by its key.
const CALLS_BEFORE_PROOF: [&str; 2] =
    ["/muster.hello.v1.Hello/Prove", "/muster.hello.v1.Hello/Renew"];

/// Number of calls that a session may make before it has proved the token.
const MAX_CALLS_BEFORE_PROOF: u64 = 8;

/// Handle to the session that a request came over. The endpoint puts it into the request's
/// extensions.
#[derive(Clone)]
pub struct Session(Arc<Shared>);

struct Shared {
    exporter: [u8; 32],
    dialer: PublicKey,
    listener: PublicKey,
    auth_state: watch::Sender<AuthState>,
    calls: watch::Sender<u64>,
}

/// Authentication state of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthState {
    /// No proof yet.
    Pending,
    /// Has proved this token.
    Authenticated(TokenId),
    /// Gave a wrong proof; the session is about to be closed.
    Denied,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("dialer", &self.0.dialer)
            .field("auth_state", &*self.0.auth_state.borrow())
            .finish_non_exhaustive()
    }
}

impl Session {
    /// `exporter` is the connection's keying material under `muster_pki::proof::EXPORTER_LABEL`.
    pub(crate) fn new(exporter: [u8; 32], dialer: PublicKey, listener: PublicKey) -> Self {
        let (auth_state, calls) = (watch::Sender::new(AuthState::Pending), watch::Sender::new(0));
        Self(Arc::new(Shared { exporter, dialer, listener, auth_state, calls }))
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
        let Shared { exporter, dialer, listener, .. } = *self.0;
        Transcript { exporter, dialer, listener, token }
    }

    /// Returns the token that the peer has proved.
    pub fn proven_token(&self) -> Option<TokenId> {
        match &*self.0.auth_state.borrow() {
            AuthState::Authenticated(token) => Some(token.clone()),
            AuthState::Pending | AuthState::Denied => None,
        }
    }

    /// Records a correct proof. Returns false if the session was denied: it stays denied.
    pub(crate) fn authenticate(&self, token: TokenId) -> bool {
        self.0.auth_state.send_if_modified(|auth_state| {
            let may = *auth_state != AuthState::Denied;
            if may {
                *auth_state = AuthState::Authenticated(token);
            }
            may
        })
    }

    /// Records a wrong proof, permanently.
    pub(crate) fn deny(&self) {
        self.0.auth_state.send_replace(AuthState::Denied);
    }

    pub(crate) fn auth_state(&self) -> watch::Receiver<AuthState> {
        self.0.auth_state.subscribe()
    }

    /// Returns true if the peer may make this call now.
    pub(crate) fn may_call(&self, path: &str) -> bool {
        match &*self.0.auth_state.borrow() {
            AuthState::Authenticated(_) => true,
            AuthState::Pending => {
                CALLS_BEFORE_PROOF.contains(&path)
                    && *self.0.calls.borrow() < MAX_CALLS_BEFORE_PROOF
            }
            AuthState::Denied => false,
        }
    }

    /// Counts a call: the session is in use.
    pub(crate) fn note_call(&self) {
        self.0.calls.send_modify(|calls| *calls = calls.wrapping_add(1));
    }

    pub(crate) fn calls(&self) -> watch::Receiver<u64> {
        self.0.calls.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use muster_pki::token::Token;

    use super::*;

    fn session() -> Session {
        Session::new([1; 32], PublicKey::from_bytes([2; 32]), PublicKey::from_bytes([3; 32]))
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
            session.note_call();
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
