//! `musterctl` as a program, against an in-process cluster: the real hello protocol and the real TLS of
//! the operator API, in front of an operator service that answers from a script. No `musterd` runs.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod calls;
mod connections;
mod contexts;
mod local_clusters;
mod outputs;
mod support;
mod usage;
