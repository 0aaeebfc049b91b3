//! The one-time agreement on the founders of the cluster (bootstrap). Owns the proposal, its
//! certificate, the protocol and the file with a node's promises. Never looks for peers or dials.
//!
//! - [`draft`], [`proposal`]: the content of the agreement, and its encoding and id;
//! - [`certificate`]: the proof that all signed it;
//! - [`record`]: the durable state of a node; [`store`] writes it;
//! - [`params`]: a node's own input; [`step`]: the protocol, pure; `model` checks it;
//! - [`wire`], [`driver`], [`failpoint`]: message encoding, execution of effects, fault injection.

pub mod certificate;
#[cfg(test)]
mod compat;
pub mod draft;
pub mod driver;
pub mod failpoint;
pub mod message;
#[cfg(test)]
mod model;
pub mod params;
pub mod proposal;
pub mod record;
pub mod step;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
pub mod wire;

pub use certificate::{Certificate, Signature, Signer};
pub use draft::{Draft, Founder, ProposalError};
pub use message::Message;
pub use proposal::{Proposal, ProposalId, config_digest};
pub use record::{Ballot, BirthRecord, Commitment, Decision, Promise, Vote};
pub use store::{PromiseStore, StoreError};
