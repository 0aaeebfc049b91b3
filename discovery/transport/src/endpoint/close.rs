//! Ends of sessions: close codes sent to the peer, and the meaning of those received.

use std::fmt;

use muster_types::text::sanitize;
use quinn::{ConnectionError, VarInt};
use tonic::Status;

/// Reason for which this side closed a connection, as the QUIC application error code. No text is
/// sent with it, so that an unauthenticated peer gets no reason and no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum CloseCode {
    /// The endpoint stops, or the session is no longer needed.
    Done = 0,
    /// Not a member, or its certificate is not valid.
    NotAMember = 1,
    /// The peer has just been removed.
    Removed = 2,
    /// The token was not proved in time.
    ProofTimeout = 3,
    /// The proof was wrong.
    Denied = 4,
    /// Too many sessions, or too many wrong proofs from this address.
    Busy = 5,
    /// Another connection to the same peer replaced it.
    Replaced = 6,
    /// No packets for too long.
    Silent = 7,
    /// The peer did not speak valid HTTP/2.
    ProtocolError = 8,
}

impl CloseCode {
    pub(crate) fn close(self, connection: &quinn::Connection) {
        connection.close(VarInt::from_u32(self as u32), b"");
    }

    pub(crate) fn close_all(self, quic: &quinn::Endpoint) {
        quic.close(VarInt::from_u32(self as u32), b"");
    }

    /// Returns the meaning of the code for the side that receives it.
    pub(crate) fn meaning(code: VarInt) -> &'static str {
        match code.into_inner() {
            0 => "the peer closed the session",
            1 => {
                "the peer rejected this node: it is not in the peer's registry, or its \
                  certificate is not valid there"
            }
            2 => "this node was removed from the cluster",
            3 => "the token was not proved in time",
            4 => "the peer rejected the token proof",
            5 => {
                "the peer has too many sessions, or saw too many wrong proofs from this address; \
                  try again in a few seconds"
            }
            6 => "another connection replaced it",
            7 => "the peer received no answer from this node",
            8 => "the peer could not read what this node sent",
            _ => "the peer closed the session for an unknown reason",
        }
    }
}

/// Error codes of QUIC that carry a TLS alert (RFC 9001 section 4.8).
const TLS_ALERTS: std::ops::Range<u64> = 0x100..0x200;

/// Reason why a connection ended or could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DisconnectReason {
    why: String,
    /// True if the peer answered and rejected this node.
    is_rejection: bool,
}

impl DisconnectReason {
    pub(crate) fn new(why: impl AsRef<str>) -> Self {
        // The text may come from the peer: QUIC lets it send a reason.
        Self { why: sanitize(why.as_ref()), is_rejection: false }
    }

    pub(crate) fn of(error: &ConnectionError) -> Self {
        let rejections =
            [CloseCode::NotAMember as u64, CloseCode::Removed as u64, CloseCode::Denied as u64];
        match error {
            ConnectionError::ApplicationClosed(close) => {
                let is_rejection = rejections.contains(&close.error_code.into_inner());
                Self { why: CloseCode::meaning(close.error_code).to_owned(), is_rejection }
            }
            ConnectionError::ConnectionClosed(close)
                if TLS_ALERTS.contains(&u64::from(close.error_code)) =>
            {
                let why =
                    CloseCode::meaning(VarInt::from_u32(CloseCode::NotAMember as u32)).to_owned();
                Self { why, is_rejection: true }
            }
            ConnectionError::TimedOut => Self::new("no answer"),
            ConnectionError::Reset => Self::new("the peer restarted"),
            ConnectionError::LocallyClosed => {
                Self::new("closed by this node: the peer is silent or no longer a member")
            }
            other => Self::new(other.to_string()),
        }
    }

    /// `is_rejection` is true if the peer answered and rejected this node.
    pub(crate) fn of_dial(why: String, is_rejection: bool) -> Self {
        Self { why, is_rejection }
    }

    pub(crate) fn is_rejection(&self) -> bool {
        self.is_rejection
    }

    /// Returns UNAUTHENTICATED when the peer rejected this node, UNAVAILABLE otherwise.
    pub(crate) fn status(&self, target: impl fmt::Display) -> Status {
        let text = format!("cannot call {target}: {}", self.why);
        if self.is_rejection { Status::unauthenticated(text) } else { Status::unavailable(text) }
    }
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}
