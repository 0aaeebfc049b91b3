//! Sessions of either ALPN: their acceptance, their service and their end. Decides neither
//! membership nor proofs.

pub(crate) mod dialled;
pub(crate) mod manager;
mod proof;
pub(crate) mod serve;
