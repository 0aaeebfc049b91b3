//! The one-time agreement on who founds the cluster. Owns the proposal, its certificate, the
//! protocol and the file that keeps a node's promises; never looks for peers and never dials.
//!
//! - [`proposal`], [`certificate`]: what is agreed on, and the proof that all founders signed it;
//! - [`record`]: what a node must never forget; [`store`] keeps it;
//! - [`step`]: the protocol, pure; `model` checks it;
//! - [`wire`], [`run`], [`failpoint`]: its messages in and out, its effects performed.

pub mod certificate;
pub mod failpoint;
pub mod message;
#[cfg(test)]
mod model;
pub mod proposal;
pub mod record;
pub mod run;
pub mod step;
#[cfg(test)]
mod step_test;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
pub mod wire;

pub use certificate::{Certificate, Signature, Signer};
pub use message::Message;
pub use proposal::{Draft, Founder, Proposal, ProposalId, config_digest};
pub use record::{Ballot, Bond, Promise, Record, Verdict};
pub use store::{PromiseStore, StoreError};
