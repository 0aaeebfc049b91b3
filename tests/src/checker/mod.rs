//! The checker. It uses only public APIs: clients write numbered values through every node and read
//! them back while faults happen ([`clients`], [`inject`]). Afterwards pure functions check the
//! history ([`invariants`], one file per claim). The one exception is the cluster id, which is also
//! read from each machine's disk.
//!
//! Faults follow a [`schedule`] that is a pure function of a seed, so the seed is enough to repeat
//! a failure.

pub mod access;
pub mod clients;
pub mod history;
pub mod inject;
pub mod invariants;
pub mod run;
pub mod schedule;
pub mod workload;

pub use history::History;
pub use invariants::Violation;
pub use schedule::Schedule;
