//! Ends of sessions: close codes sent to the peer, and the meaning of those received.

use std::fmt;

use quinn::{ConnectionError, VarInt};
use tonic::Status;

use super::dial::DialError;
use muster_types::text::sanitize;

/// Reason for which this side closed a connection, as the QUIC application error code. No text is
/// sent with it, so that an unauthenticated peer learns nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Close {
    /// The endpoint stops, or the session is no longer needed.
    Done = 0,
    /// Not a member, or its certificate is not valid.
    NotAdmitted = 1,
    /// The peer has just been removed.
    Removed = 2,
    /// The token was not proved in time.
    Unproven = 3,
    /// The proof was wrong.
    Denied = 4,
    /// Too many sessions, or too many wrong proofs from this address.
    Busy = 5,
    /// Another connection to the same peer replaced it.
    Replaced = 6,
    /// No packets for too long.
    Silent = 7,
    /// The peer did not speak valid HTTP/2.
    Broken = 8,
}

impl Close {
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
pub(crate) struct Lost {
    why: String,
    /// True if the peer answered and rejected this node.
    is_refusal: bool,
}

impl Lost {
    pub(crate) fn because(why: impl AsRef<str>) -> Self {
        // The text may come from the peer: QUIC lets it send a reason.
        Self { why: sanitize(why.as_ref()), is_refusal: false }
    }

    pub(crate) fn of(error: &ConnectionError) -> Self {
        let refusals = [Close::NotAdmitted as u64, Close::Removed as u64, Close::Denied as u64];
        match error {
            ConnectionError::ApplicationClosed(close) => {
                let is_refusal = refusals.contains(&close.error_code.into_inner());
                Self { why: Close::meaning(close.error_code).to_owned(), is_refusal }
            }
            ConnectionError::ConnectionClosed(close)
                if TLS_ALERTS.contains(&u64::from(close.error_code)) =>
            {
                let why = Close::meaning(VarInt::from_u32(Close::NotAdmitted as u32)).to_owned();
                Self { why, is_refusal: true }
            }
            ConnectionError::TimedOut => Self::because("no answer"),
            ConnectionError::Reset => Self::because("the peer restarted"),
            ConnectionError::LocallyClosed => {
                Self::because("closed by this node: the peer is silent or no longer a member")
            }
            other => Self::because(other.to_string()),
        }
    }

    pub(crate) fn is_refusal(&self) -> bool {
        self.is_refusal
    }

    /// Returns UNAUTHENTICATED when the peer rejected this node, UNAVAILABLE otherwise.
    pub(crate) fn status(&self, whom: impl fmt::Display) -> Status {
        let text = format!("call {whom}: {}", self.why);
        if self.is_refusal { Status::unauthenticated(text) } else { Status::unavailable(text) }
    }
}

impl From<DialError> for Lost {
    fn from(error: DialError) -> Self {
        let is_refusal = matches!(error, DialError::Refused { .. });
        Self { why: error.to_string(), is_refusal }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}
