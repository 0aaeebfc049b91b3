//! What a node answers: other nodes (`node`), strangers with a token (`door`), operators
//! (`operator`, over the port of `listen`, which a worker relays).

mod crowd;
pub mod door;
pub mod listen;
pub mod local;
pub mod node;
pub mod operator;
pub mod relay;
