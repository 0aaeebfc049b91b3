//! A node's start and local clusters, as an operator meets them on one machine.

mod bad_input;
mod local;
mod names;
mod ports;
mod start;
mod stderr;
