//! The cluster's authorities: created once by the first leader and committed to the Raft log.

use muster_pki::authority::{Authority, AuthorityKind, ServiceAccountKey};
use muster_types::NodeId;
use serde::{Deserialize, Serialize};

use super::{ClusterState, Outcome, Refusal, RefusalKind};

/// Every authority of the cluster with its private key. Only control-plane nodes hold this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorities {
    /// Issues node certificates.
    pub machine: Authority,
    pub etcd: Authority,
    pub kubernetes: Authority,
    pub front_proxy: Authority,
    pub service_account: ServiceAccountKey,
}

impl Authorities {
    /// Every authority, in listing order.
    pub fn all(&self) -> [&Authority; 4] {
        [&self.machine, &self.etcd, &self.kubernetes, &self.front_proxy]
    }

    fn check(&self) -> Result<(), Refusal> {
        for (authority, expected) in self.all().into_iter().zip(AuthorityKind::ALL) {
            if authority.kind() != expected {
                return Err(Refusal::new(
                    RefusalKind::Invalid,
                    format!(
                        "expected the {expected} authority, found one of the kind {}; create the \
                         authorities again",
                        authority.kind()
                    ),
                ));
            }
        }
        Ok(())
    }
}

impl ClusterState {
    /// The authorities; `None` until they are installed.
    pub fn authorities(&self) -> Option<&Authorities> {
        self.authorities.as_ref()
    }

    /// The certificates (DER) that members check each other against; empty until installed.
    pub fn machine_authorities(&self) -> Vec<Vec<u8>> {
        self.authorities.iter().map(|a| a.machine.certificate().to_vec()).collect()
    }

    pub(super) fn install_authorities(
        &mut self,
        by: &NodeId,
        authorities: &Authorities,
    ) -> Result<Outcome, Refusal> {
        self.require_control_plane(by)?;
        match &self.authorities {
            None => {
                authorities.check()?;
                self.authorities = Some(authorities.clone());
                Ok(Outcome::Done)
            }
            Some(held) if held == authorities => Ok(Outcome::Unchanged),
            Some(_) => Err(Refusal::new(
                RefusalKind::Conflict,
                "the cluster already has other authorities; discard these and use those",
            )),
        }
    }
}
