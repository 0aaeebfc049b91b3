//! Machinery of one node: supervised processes, their logs, etcd as a unit, and facts about the
//! machine. Knows no peers and no cluster: the caller passes in what a unit should run.

pub mod facts;
pub mod logs;
pub mod supervisor;
pub mod units;
