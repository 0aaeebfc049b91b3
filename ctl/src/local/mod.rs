//! Clusters of processes on this machine, on loopback addresses of their own.
//!
//! A local cluster is a directory: `cluster.yaml` (what was started, and as which processes),
//! `node.yaml`, and per node its state and its log. Nothing outside of it belongs to the cluster
//! but the context of the same name.

mod addresses;
mod process;
mod program;
mod record;

pub(crate) use self::addresses::{AddressError, Block};
pub(crate) use self::process::{GRACE, Process, ProcessError};
pub(crate) use self::program::{ProgramError, musterd};
pub(crate) use self::record::{Member, Record, RecordError};
