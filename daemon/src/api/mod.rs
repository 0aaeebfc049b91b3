//! The APIs of a node: for other nodes (`node`), for unauthenticated peers with a token (`hello`),
//! and for operators (`operator`). Operators connect to the port of `listen`; a worker relays it.

mod accept;
pub mod hello;
pub mod listen;
pub mod node;
pub mod node_status;
pub mod operator;
pub mod relay;
mod status;
