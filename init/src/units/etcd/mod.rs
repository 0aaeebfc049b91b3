//! etcd as a unit: locates the binary, writes credentials, guards the data directory, supervises
//! and probes the process, and calls its API.

pub mod binary;
pub mod client;
pub mod credentials;
pub mod dir;
#[cfg(test)]
mod fuzz;
mod log_errors;
mod probe;
pub mod restore;
mod run;
pub mod spec;
mod unit_status;

pub use binary::{Binary, LocateError, Tool, Version, locate};
pub use credentials::{Authorities, Credential, Credentials};
pub use run::{
    DataState, EtcdHealth, EtcdPhase, EtcdStatus, EtcdUnit, EtcdUnitTask, SetError, etcd_unit,
    policy,
};
pub use spec::{EtcdGeneration, EtcdSpec, InitialCluster, InitialClusterState, Tuning};
pub use unit_status::NAME;
