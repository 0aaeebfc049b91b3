//! Comparable programs, run as their users would.

pub mod etcd;
pub mod serf;
