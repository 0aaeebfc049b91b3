//! etcd as a unit: locates the binary, writes credentials, guards the data directory, supervises
//! and probes the process, and calls its API.

pub mod binary;
pub mod client;
pub mod credentials;
pub mod dir;
mod handle;
mod log_errors;
mod probe;
pub mod restore;
pub mod spec;
mod start_check;
mod start_record;
mod status;
mod task;

pub use binary::{Binary, LocateError, Tool, Version, locate};
pub use credentials::{Authorities, Credential, Credentials};
pub use handle::{EtcdUnit, EtcdUnitError};
pub use spec::{EtcdSpec, Tuning};
pub use start_check::StartError;
pub use start_record::{InitialCluster, StartRecord};
pub use status::{EtcdStatus, NAME};
pub use task::{EtcdUnitTask, policy};
