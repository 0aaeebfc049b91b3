//! Controller of this node's etcd. Builds the unit's spec from the plan, with certificates from the
//! cluster's etcd authority, renewed before they expire. Also produces the node's etcd report.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use muster_init::units::etcd::dir::EtcdDir;
use muster_init::units::etcd::{
    Authorities, Binary, Credential, Credentials, EtcdSpec, EtcdStatus, EtcdUnit, InitialCluster,
    Tuning,
};
use muster_pki::authority::AuthorityKind;
use muster_pki::leaf::{self, KeyPair, Leaf, Profile};
use muster_types::etcd::{DataState, EtcdGeneration, EtcdPeer, InitialClusterState};
use muster_types::{ETCD_CLIENT_PORT, ETCD_PEER_PORT, NodeName};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::certificate::ips;
use crate::clock;
use crate::etcd_clients;
use crate::raft::Group;
use crate::restore::Restore;
use crate::status::{PublishedUnit, StatusWriter, UnitLeaf, UnitWriter};
use muster_state::etcd::Assignment;
use muster_state::{ClusterState, EtcdReport, Member};
use muster_types::error::chain;

/// Interval of a check without events: certificates expire without one.
const RESYNC_INTERVAL: Duration = Duration::from_secs(30);

/// Lifetime of the certificate for the unit's health checks.
const PROBE_LIFETIME: Duration = Duration::from_hours(7 * 24);

/// The last spec that was submitted, and when.
type LastSpec = Option<(EtcdSpec, Instant)>;

/// Inputs and outputs of the controller.
#[derive(Debug)]
pub struct EtcdUnitController {
    /// Handle to the Raft group.
    pub group: Group,
    /// etcd binary.
    pub binary: Binary,
    /// etcd's directory.
    pub etcd_dir: EtcdDir,
    /// Handle to the unit.
    pub handle: EtcdUnit,
    /// Snapshot that the first generation must still be restored from.
    pub restore: Option<Restore>,
    /// Publishes the unit.
    pub unit: UnitWriter,
    /// Publishes the report for the etcd plan.
    pub status: StatusWriter,
}

/// Certificates of one etcd member, and the names they were issued for.
#[derive(Debug)]
struct Leaves {
    name: NodeName,
    addresses: Vec<IpAddr>,
    server: (Leaf, KeyPair),
    peer: (Leaf, KeyPair),
    client: (Leaf, KeyPair),
}

/// The member that the plan assigns to this node.
#[derive(Debug)]
struct DesiredMember {
    generation: EtcdGeneration,
    state: InitialClusterState,
    members: Vec<EtcdPeer>,
    known_to_cluster: bool,
}

impl EtcdUnitController {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut states = self.group.watch_state();
        let mut unit = self.handle.status();
        let (mut leaves, mut last_spec) = (None, None);
        loop {
            let state = Arc::clone(&states.borrow_and_update());
            let assignment = state.etcd().assignment(&self.group.me());
            // Before the unit follows: it must not count as ready for a former assignment.
            if let Some(blocked) = blocked(&assignment, None) {
                self.publish(unit.borrow().clone(), Some(blocked), leaves.as_ref());
            }
            let problem = match self.reconcile(&state, &mut leaves, &mut last_spec).await {
                Ok(()) => None,
                Err(problem) => {
                    warn!(reason = problem, "etcd does not match its assignment");
                    Some(problem)
                }
            };
            let seen = unit.borrow_and_update().clone();
            self.publish_report(&state, &seen);
            self.publish(seen, blocked(&assignment, problem), leaves.as_ref());
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = states.changed() => if changed.is_err() { return },
                changed = unit.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RESYNC_INTERVAL) => {}
            }
        }
    }

    async fn reconcile(
        &mut self,
        state: &ClusterState,
        leaves: &mut Option<Leaves>,
        last_spec: &mut LastSpec,
    ) -> Result<(), String> {
        // Runs after every command of the group, so an unchanged spec is not resubmitted so soon.
        let last = last_spec.take();
        let Some(member) = state.member(&self.group.me()) else {
            return self.handle.stop().await.map_err(|error| chain(&error));
        };
        let Some(desired) = desired(state, member) else {
            return self.handle.stop().await.map_err(|error| chain(&error));
        };
        let now = clock::now();
        if leaves.as_ref().is_none_or(|leaves| leaves.are_due(member, now)) {
            let Some(authorities) = state.authorities() else { return Ok(()) };
            *leaves = Some(Leaves::issue(&authorities.etcd, member, now)?);
            info!("issued etcd's certificates");
        }
        let (Some(leaves), Some(authorities)) = (leaves.as_ref(), state.authorities()) else {
            return Ok(());
        };
        let address = member.addresses.first().ok_or("this node has no address")?.ip();
        let token = state.birth().map(|birth| birth.cluster_id.to_string()).unwrap_or_default();
        let spec = EtcdSpec {
            binary: self.binary.clone(),
            generation: desired.generation,
            name: member.name.clone(),
            initial: InitialCluster { state: desired.state, token, members: desired.members },
            known_to_cluster: desired.known_to_cluster,
            peer: SocketAddr::new(address, ETCD_PEER_PORT),
            client: SocketAddr::new(address, ETCD_CLIENT_PORT),
            tuning: Tuning::default(),
            credentials: leaves.credentials(authorities.etcd.certificate().clone()),
        };
        if let Some(restore) = &self.restore {
            restore.run(&self.etcd_dir, &spec).await?;
            self.restore = None;
        }
        let now = Instant::now();
        let is_current =
            |(last, at): &(EtcdSpec, Instant)| *last == spec && now - *at < RESYNC_INTERVAL;
        *last_spec = last.filter(is_current);
        if last_spec.is_none() {
            self.handle.set(spec.clone()).await.map_err(|error| chain(&error))?;
            *last_spec = Some((spec, now));
        }
        Ok(())
    }

    fn publish_report(&self, state: &ClusterState, status: &EtcdStatus) {
        let Some(record) = state.etcd().node(&self.group.me()) else { return };
        // The unit reports the generation of its spec, which may differ from the plan's.
        let data = if status.generation == Some(record.generation) {
            status.data
        } else {
            last_reported_data(state, &self.group, record.generation)
        };
        self.status.set_etcd_report(EtcdReport {
            generation: record.generation,
            data,
            version: self.binary.version.to_string(),
        });
    }

    fn publish(&self, status: EtcdStatus, blocked: Option<String>, leaves: Option<&Leaves>) {
        let leaves = leaves.map(Leaves::presented).unwrap_or_default();
        self.unit.publish(PublishedUnit { status: status.unit, blocked, leaves });
    }
}

/// Returns the reason why the unit does not run what the plan assigns. `None` if it runs, or starts.
fn blocked(assignment: &Assignment, problem: Option<String>) -> Option<String> {
    if let Some(problem) = problem {
        return Some(format!("its etcd: {problem}"));
    }
    match assignment {
        Assignment::Nothing => Some("its assignment in the etcd plan".to_owned()),
        Assignment::Wait { reason, .. } => Some((*reason).to_owned()),
        Assignment::Run { .. } => None,
    }
}

/// Returns the data state that this node last reported: a restart does not make the data absent.
fn last_reported_data(
    state: &ClusterState,
    group: &Group,
    generation: EtcdGeneration,
) -> DataState {
    let reported = state.member(&group.me()).and_then(|member| member.etcd.as_ref());
    reported
        .filter(|reported| reported.generation == generation)
        .map_or(DataState::Absent, |reported| reported.data)
}

/// Returns the desired state. `None` if the plan assigns nothing to run.
fn desired(state: &ClusterState, member: &Member) -> Option<DesiredMember> {
    let Assignment::Run { generation, initial_state: state, initial_cluster: members } =
        state.etcd().assignment(&member.id)
    else {
        return None;
    };
    let known_to_cluster = member.etcd.as_ref().is_some_and(|reported| {
        reported.generation == generation
            && matches!(reported.data, DataState::Present | DataState::Lost)
    });
    Some(DesiredMember { generation, state, members, known_to_cluster })
}

impl Leaves {
    fn issue(
        authority: &muster_pki::authority::Authority,
        member: &Member,
        now: SystemTime,
    ) -> Result<Self, String> {
        let issue = |profile: &Profile| {
            let key = KeyPair::generate();
            let leaf = leaf::issue(authority, profile, &key.public(), now);
            leaf.map(|leaf| (leaf, key)).map_err(|error| chain(&error))
        };
        let (name, addresses) = (member.name.clone(), ips(member));
        let common_name = etcd_clients::common_name(&member.id.short());
        Ok(Self {
            server: issue(&Profile::EtcdServer {
                name: name.clone(),
                addresses: addresses.clone(),
            })?,
            peer: issue(&Profile::EtcdPeer { name: name.clone(), addresses: addresses.clone() })?,
            client: issue(&Profile::EtcdClient { common_name, lifetime: PROBE_LIFETIME })?,
            name,
            addresses,
        })
    }

    /// Returns the certificates that etcd presents, for this node's status.
    fn presented(&self) -> Vec<UnitLeaf> {
        let leaf = |name, leaf: &Leaf| {
            let certificate = leaf.chain.first()?.clone();
            Some(UnitLeaf { name, authority: AuthorityKind::Etcd, certificate })
        };
        let leaves = [leaf("etcd-server", &self.server.0), leaf("etcd-peer", &self.peer.0)];
        leaves.into_iter().flatten().collect()
    }

    /// Returns true if half of a certificate's lifetime is over, or the member's names have
    /// changed.
    fn are_due(&self, member: &Member, now: SystemTime) -> bool {
        let leaves = [&self.server, &self.peer, &self.client];
        self.name != member.name
            || self.addresses != ips(member)
            || leaves.iter().any(|(leaf, _)| leaf.renew_at() <= now)
    }

    fn credentials(&self, authority: muster_pki::CertificateDer<'static>) -> Credentials {
        let credential =
            |(leaf, key): &(Leaf, KeyPair)| Credential::new(leaf.chain.clone(), key.to_pkcs8());
        Credentials {
            authorities: Authorities::new(vec![authority]).expect("the list has one certificate"),
            server: credential(&self.server),
            peer: credential(&self.peer),
            client: credential(&self.client),
        }
    }
}
