//! The APIs of a node: for other nodes (`node`), for unauthenticated peers with a token (`door`),
//! and for operators (`operator`). Operators connect to the port of `listen`; a worker relays it.

mod crowd;
pub mod door;
pub mod listen;
pub mod local;
pub mod node;
pub mod operator;
pub mod relay;
