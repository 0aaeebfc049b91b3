//! The cluster's authorities: made once, by the first leader, and agreed by the group.

use muster_pki::authority::{Authority, AuthorityKind, ServiceAccountKey};
use serde::{Deserialize, Serialize};

use super::command::InstallAuthorities;
use super::{ClusterState, Outcome, Reason, Refusal};

/// Every authority of the cluster with its private key. Only control-plane nodes ever hold this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorities {
    /// Node certificates.
    pub machine: Authority,
    pub etcd: Authority,
    pub kubernetes: Authority,
    pub front_proxy: Authority,
    pub service_account: ServiceAccountKey,
}

impl Authorities {
    /// Each authority, in the order in which they are listed.
    pub fn all(&self) -> [&Authority; 4] {
        [&self.machine, &self.etcd, &self.kubernetes, &self.front_proxy]
    }

    fn check(&self) -> Result<(), Refusal> {
        for (authority, place) in self.all().into_iter().zip(AuthorityKind::ALL) {
            if authority.kind() != place {
                return Err(Refusal::new(
                    Reason::Invalid,
                    format!(
                        "an authority of the kind {} stands in the place of the {place} \
                         authority; make them again",
                        authority.kind()
                    ),
                ));
            }
        }
        Ok(())
    }
}

impl ClusterState {
    /// The authorities, once they are agreed.
    pub fn authorities(&self) -> Option<&Authorities> {
        self.authorities.as_ref()
    }

    /// The certificates (DER) by which members know each other; empty until they are agreed.
    pub fn machine_authorities(&self) -> Vec<Vec<u8>> {
        self.authorities.iter().map(|a| a.machine.certificate().to_vec()).collect()
    }

    pub(super) fn install_authorities(
        &mut self,
        install: &InstallAuthorities,
    ) -> Result<Outcome, Refusal> {
        self.control_plane(&install.by)?;
        match &self.authorities {
            None => {
                install.authorities.check()?;
                self.authorities = Some(install.authorities.clone());
                Ok(Outcome::Done)
            }
            Some(held) if *held == install.authorities => Ok(Outcome::Unchanged),
            Some(_) => Err(Refusal::new(
                Reason::Conflict,
                "the cluster has agreed on other authorities already; discard these and use those",
            )),
        }
    }
}
