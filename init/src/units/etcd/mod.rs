//! etcd as a unit: found, checked, given its credentials and its place on disk, started once and
//! for all as the member it is, watched, and talked to.

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
