//! Local clusters: processes on this machine, on their own loopback addresses.
//!
//! A local cluster is a directory: `cluster.yaml` (its nodes and their processes), `node.yaml`, and
//! per node its state and its log. The only thing outside the directory is the context of the same
//! name.

mod addresses;
mod log;
mod process;
mod program;
mod record;

pub(crate) use self::addresses::{AddressError, LoopbackBlock};
pub(crate) use self::log::last_log_line;
pub(crate) use self::process::{Process, ProcessError};
pub(crate) use self::program::{ProgramError, musterd};
pub(crate) use self::record::{
    ClusterRecord, ClusterRecordError, FORMAT as RECORD_FORMAT, LocalNode, stop_all,
};
