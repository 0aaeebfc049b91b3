//! Keeps one process running: starts it, writes its output to a log, restarts it with growing
//! pauses when it ends or hangs, stops it in order. Adopts nothing: a process it did not start is
//! not its own, and what it started never outlives this process.

mod child;
mod run;
pub mod step;

pub use child::{Command, Guard, Refusal};
pub use run::{Gone, Handle, Owner, Phase, Spec, Status, supervise};
pub use step::{Exit, Policy};
