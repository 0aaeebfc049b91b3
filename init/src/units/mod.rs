//! The programs that a node runs, one folder each.

pub mod etcd;
