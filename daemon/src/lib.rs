//! musterd: composes discovery, init and pki into one node. The only crate that knows Raft.

pub mod api;
pub mod args;
#[cfg(test)]
mod bounds;
pub mod certificate;
pub mod clock;
pub mod compose;
pub mod controllers;
pub mod convert;
pub mod core_dump;
pub mod etcd_clients;
pub mod fatal;
pub mod member;
pub mod membership;
pub mod ports;
pub mod prepare;
pub mod raft;
pub mod restore;
pub mod state_dir;
pub mod status;
pub mod stderr;
pub mod tasks;
pub mod throttle;
pub mod trust_store;
