//! The checker: it knows nothing of Muster's insides. Clients write numbered values through every
//! node and read them back while faults happen ([`clients`], [`perform`]); afterwards the history is
//! judged by pure functions: nothing acknowledged is lost, nothing read back is older than what was
//! seen or acknowledged before, nothing appears that nobody wrote, and there is one cluster. The last
//! is the one thing for which it looks inside: at what each machine's disk says.
//!
//! Faults follow a [`schedule`] that is a pure function of a seed, so a seed is all that it takes to
//! see a failure again. `search` tries all orders of a small history, to judge the judges.

pub mod access;
pub mod clients;
pub mod history;
pub mod perform;
pub mod register;
pub mod run;
pub mod schedule;
#[cfg(test)]
mod search;
pub mod set;
pub mod sightings;
#[cfg(test)]
mod tests;
pub mod workload;

pub use history::{History, Violation, judge};
pub use schedule::Schedule;
