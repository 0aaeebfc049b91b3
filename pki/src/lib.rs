//! Keys, certificate authorities, leaves, trust bundles, the token and its proof, and the TLS
//! configurations built from them. Bytes and time in, certificates out: no sockets, files or
//! runtime.

pub mod authority;
pub mod bundle;
pub mod identity;
pub mod inspect;
pub mod leaf;
pub mod proof;
pub mod tls;
pub mod token;

#[cfg(test)]
mod compat;
mod key;
mod serial;
mod storage;
#[cfg(test)]
mod testing;
mod validity;

pub use rustls::pki_types::CertificateDer;
pub use zeroize::Zeroizing;
