//! The tools that people would otherwise use, as they would run them.

pub mod etcd;
pub mod serf;
