//! musterd: composes discovery, init and pki into one node. The only crate that knows Raft.

pub mod api;
pub mod args;
pub mod clock;
pub mod compose;
pub mod controllers;
pub mod core_dump;
pub mod fatal;
#[cfg(test)]
mod fuzz;
pub mod keeper;
pub mod life;
pub mod membership;
pub mod prepare;
pub mod raft;
pub mod readiness;
pub mod restore;
pub mod state_dir;
pub mod wire;
