//! One node's machinery: processes under supervision, their logs, etcd as a unit, and facts about
//! the machine. Knows no peers and no cluster: what a unit should run comes in as a value.

pub mod facts;
pub mod logs;
pub mod supervisor;
pub mod units;
