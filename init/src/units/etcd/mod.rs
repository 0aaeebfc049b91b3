//! etcd as a unit: locates the binary, writes credentials, guards the data directory, supervises
//! and probes the process, and calls its API.

pub mod binary;
pub mod client;
pub mod credentials;
#[cfg(test)]
mod fuzz;
pub mod home;
mod probe;
pub mod restore;
mod run;
pub mod spec;
mod words;

pub use binary::{Binary, LocateError, Tool, Version, locate};
pub use credentials::{Authorities, Credential, Credentials};
pub use run::{Data, Handle, Health, Owner, Phase, SetError, Status, policy, unit};
pub use spec::{Generation, Initial, InitialState, Spec, Tuning};
