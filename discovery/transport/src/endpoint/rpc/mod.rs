//! Calls over a session, either end: gRPC over HTTP/2 over a QUIC stream, behind the authorisation of
//! each call. Knows neither connections nor what the calls mean.

pub(crate) mod caller;
pub(crate) mod deadline;
pub(crate) mod guard;
pub(crate) mod http2;
