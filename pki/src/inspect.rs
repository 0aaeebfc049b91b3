//! Certificate details for `musterctl pki show`. Verifies nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use crate::identity::{ParseCertificateError, parse};
use crate::validity::Validity;

/// The readable parts of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    pub subject: String,
    pub issuer: String,
    /// `DNS:<name>` and `IP:<address>`, in the certificate's order.
    pub alternative_names: Vec<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// SHA-256 of the certificate, in lower-case hex, as `openssl x509 -fingerprint -sha256`
    /// computes it.
    pub fingerprint: String,
    /// The serial number, in lower-case hex.
    pub serial: String,
}

/// Reads a certificate's details without verifying its signature.
pub fn describe(
    certificate: &CertificateDer<'_>,
) -> Result<CertificateInfo, ParseCertificateError> {
    let parsed = parse(certificate)?;
    let names = parsed.subject_alternative_name().map_err(|_| ParseCertificateError::Malformed)?;
    let dates = parsed.validity();
    let validity = Validity::from_unix(dates.not_before.timestamp(), dates.not_after.timestamp());
    Ok(CertificateInfo {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        alternative_names: names
            .map(|names| names.value.general_names.iter().map(alternative_name).collect())
            .unwrap_or_default(),
        not_before: validity.not_before,
        not_after: validity.not_after,
        fingerprint: HEXLOWER.encode(digest(&SHA256, certificate).as_ref()),
        serial: HEXLOWER.encode(parsed.raw_serial()),
    })
}

fn alternative_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => format!("DNS:{name}"),
        GeneralName::IPAddress(bytes) => match address(bytes) {
            Some(address) => format!("IP:{address}"),
            None => format!("IP:{} bytes", bytes.len()),
        },
        other => other.to_string(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(|bytes| Ipv4Addr::from(bytes).into())
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| Ipv6Addr::from(bytes).into()))
        .ok()
}
