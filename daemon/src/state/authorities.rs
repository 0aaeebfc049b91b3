//! The cluster's authorities: made once, by the first leader, and agreed by the group.

use serde::{Deserialize, Serialize};

use super::command::InstallAuthorities;
use super::secret::{Authority, ServiceAccountKey};
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
