//! Keys, certificate authorities, leaves, trust bundles, the token and its proof, and the TLS
//! configurations made of them. Bytes and time come in, certificates come out; never a socket, a
//! file or a runtime.

pub mod identity;
pub mod proof;
pub mod token;

#[allow(dead_code, reason = "used by the authorities, which follow")]
mod key;
mod serial;
#[allow(dead_code, reason = "used by the authorities, which follow")]
mod storage;
#[allow(dead_code, reason = "used by the authorities, which follow")]
mod validity;

pub use rustls::pki_types::CertificateDer;
pub use zeroize::Zeroizing;
