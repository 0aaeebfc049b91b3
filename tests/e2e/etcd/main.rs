//! etcd as a part of the cluster: the operator's commands and tools, restore, a founder that moves.

mod audited;
mod moved_founder;
mod operators;
mod restore;
