//! The etcd unit with the real etcd: members on loopback addresses, mutual TLS, faults.

mod births;
mod credentials;
mod faults;
mod membership;
mod snapshots;
mod support;
