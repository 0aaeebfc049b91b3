//! Real nodes in one process, each with its own endpoint, stores and runtime: the group, its reads
//! and quorum, the hello service and the node API. Does not start `musterd`; etcd does not run.

#![allow(clippy::unwrap_used, reason = "these are tests")]
#![allow(clippy::print_stdout, reason = "measurements")]

mod attacks;
mod group;
mod hello;
mod node_api;
mod quorum;
mod reads;
mod support;
