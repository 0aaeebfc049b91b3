//! Units in the status of this node: their controllers publish them by name.

use muster_init::units::{UnitName, UnitStatus};
use muster_pki::CertificateDer;
use muster_pki::authority::AuthorityKind;
use tokio::sync::watch;

use super::NodeStatus;

/// A unit as its controller publishes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedUnit {
    pub status: UnitStatus,
    /// Reason why the unit does not run what the cluster assigns. Reads well after "waits for …".
    /// `None` if the status alone says how it is.
    pub blocked: Option<String>,
    /// Certificates that it presents.
    pub leaves: Vec<UnitLeaf>,
}

impl PublishedUnit {
    /// A unit whose controller has not run yet.
    pub const STOPPED: Self =
        Self { status: UnitStatus::STOPPED, blocked: None, leaves: Vec::new() };
}

/// A certificate that a unit presents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitLeaf {
    pub name: &'static str,
    /// The authority that issued it.
    pub authority: AuthorityKind,
    pub certificate: CertificateDer<'static>,
}

/// Publishes one unit of this node.
#[derive(Debug)]
pub struct UnitWriter {
    pub(super) name: UnitName,
    pub(super) node: watch::Sender<NodeStatus>,
}

impl UnitWriter {
    /// Replaces the unit's entry, and notifies readers if it differs.
    pub fn publish(&self, unit: PublishedUnit) {
        self.node.send_if_modified(|node| {
            let differs = node.units.get(&self.name) != Some(&unit);
            if differs {
                node.units.insert(self.name, unit);
            }
            differs
        });
    }
}
