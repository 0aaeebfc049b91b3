//! The programs that a node supervises, one folder each.

pub mod etcd;
