//! Muster's own client of etcd's gRPC API, over mutual TLS; every call has a deadline and a typed
//! error. A [`MemberClient`] is one endpoint, a [`EtcdClient`] tries several in turn.

mod cluster;
mod connect;
mod error;
#[cfg(test)]
mod fuzz;
mod member;
pub mod snapshot;

pub use cluster::EtcdClient;
pub use connect::{CredentialsError, Tls};
pub use error::{CallError, CallErrorKind};
pub use member::{
    Alarm, AlarmKind, Deadlines, EtcdMember, MemberClient, MemberHealth, MemberStatus,
};

/// Generated from Muster's subset of etcd's API.
mod wire {
    #![allow(
        clippy::pedantic,
        clippy::allow_attributes_without_reason,
        clippy::clone_on_ref_ptr,
        missing_debug_implementations,
        unreachable_pub,
        unused_qualifications,
        reason = "generated code"
    )]

    tonic::include_proto!("etcdserverpb");
}
