//! Clients and servers of the three services: `hello` (peers without a certificate), `node` (members)
//! and `operator` (operators).

#![allow(
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]

mod members {
    include!(concat!(env!("OUT_DIR"), "/member_services.rs"));
}

mod operators {
    include!(concat!(env!("OUT_DIR"), "/operator_service.rs"));
}

include!(concat!(env!("OUT_DIR"), "/operator_calls.rs"));

/// Stream of replies to one call.
pub use tonic::codegen::BoxStream;

pub use members::muster::hello::v1 as hello;
pub use members::muster::node::v1 as node;
pub use operators::muster::operator::v1 as operator;
