//! Clients' access to the cluster: the operator API, and etcd with the certificate that `musterctl`
//! issues. One connection per client and node, so that a call costs one round trip.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use muster_init::units::etcd::client::{Deadlines, MemberClient, Tls};
use muster_init::units::etcd::{Authorities, Credential};
use muster_types::{DEFAULT_PORT, ETCD_CLIENT_PORT};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::cluster::Cluster;
use crate::operator::{Client, OperatorCredentials};

/// Timeout of one call: longer than an election, shorter than a partition.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// A connection without an answer for this long is replaced.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);

/// Current addresses of the nodes. A test that changes an address updates them.
#[derive(Debug, Clone, Default)]
pub struct Addresses(Arc<Mutex<BTreeMap<String, Ipv4Addr>>>);

impl Addresses {
    pub fn set(&self, node: &str, address: Ipv4Addr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned(), address);
    }

    fn of(&self, node: &str, port: u16) -> SocketAddr {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let address = known.get(node).copied().unwrap_or(Ipv4Addr::UNSPECIFIED);
        SocketAddr::new(IpAddr::V4(address), port)
    }
}

/// Everything that a client needs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Access {
    operator: OperatorCredentials,
    etcd: Tls,
    addresses: Addresses,
}

impl Access {
    /// Reads the credentials on the operator's machine of a healthy cluster.
    pub fn of(cluster: &Cluster, addresses: Addresses) -> Result<Self> {
        let text = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
        };
        let out = cluster.etcd_credentials()?;
        let authorities = certificates(&text(&out.join("ca.crt"))?)?;
        let authorities = Authorities::new(authorities).context("ca.crt is empty")?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(text(&out.join("client.key"))?.as_bytes())?;
        let key = zeroize::Zeroizing::new(key.secret_pkcs8_der().to_vec());
        let own = Credential::new(certificates(&text(&out.join("client.crt"))?)?, key);
        let operator = OperatorCredentials::of(cluster)?;
        Ok(Self { operator, etcd: Tls::new(&authorities, &own)?, addresses })
    }

    /// Returns a client of one node's operator API. It connects on first use and reconnects as
    /// needed.
    pub(super) fn operator(&self, node: &str) -> Client {
        let (addresses, node) = (self.addresses.clone(), node.to_owned());
        self.operator.reconnecting(move || addresses.of(&node, DEFAULT_PORT), CONNECTION_TIMEOUT)
    }

    /// Returns a client of one node's etcd member, at its current address.
    pub(super) fn etcd(&self, node: &str) -> MemberClient {
        let deadlines = Deadlines { call: CALL_TIMEOUT, ..Deadlines::default() };
        MemberClient::new(self.addresses.of(node, ETCD_CLIENT_PORT), &self.etcd, deadlines)
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    read.context("certificates in PEM")
}
