//! Keeps one process running: starts it, logs its output, restarts it with backoff when it exits or
//! hangs, and stops it gracefully. Never adopts a process that it did not start; no child outlives
//! this process.

mod child;
mod run;
pub mod step;

pub use child::{Command, StartCheck, StartRefusal};
pub use run::{
    ProcessPhase, ProcessSpec, ProcessStatus, Supervisor, SupervisorStopped, SupervisorTask,
};
pub use step::{Exit, Policy};
