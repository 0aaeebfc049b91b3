//! The first two commands of a cluster. The leader commits what the founders agreed on, then the
//! authorities that it generates. `apply` treats both as compare-and-set, so a second attempt
//! changes nothing.

use std::time::Duration;

use muster_config::Config;
use muster_formation::birth;
use muster_messages::hello::BirthCertificate;
use muster_pki::authority::{Authority, AuthorityKind, ServiceAccountKey};
use muster_pki::token::Token;
use muster_types::ClusterId;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock;
use crate::raft::Group;
use muster_state::command::{FoundCluster, Founder, InstallAuthorities, Operator};
use muster_state::{Authorities, ClusterState, Command};

/// Interval of a check without events.
const RESYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The founding, as a founder knows it.
#[derive(Debug)]
pub struct Founding {
    found: FoundCluster,
}

impl Founding {
    pub fn new(
        certificate: &birth::Certificate,
        config: &Config,
        token: &Token,
        digest: [u8; 32],
    ) -> Self {
        let founders = certificate.founders().iter().map(|founder| Founder {
            public_key: founder.public_key,
            name: founder.name.clone(),
            addresses: founder.addresses.clone(),
        });
        let operators = config.cluster.operators.iter().map(|operator| Operator {
            public_key: operator.key,
            name: operator.name.clone(),
            role: operator.role,
        });
        let found = FoundCluster {
            cluster_id: certificate.cluster_id(),
            cluster_name: config.cluster.name.clone(),
            certificate: BirthCertificate::from(certificate).encode_to_vec(),
            founders: founders.collect(),
            operators: operators.collect(),
            token: token.id().clone(),
            verifier: token.verifier(),
            config_digest: digest,
        };
        Self { found }
    }

    fn next_command(&self, state: &ClusterState, group: &Group) -> Option<Command> {
        if state.birth().is_none() {
            return Some(Command::FoundCluster(Box::new(self.found.clone())));
        }
        state.authorities().is_none().then(|| self.authorities(group))
    }

    fn authorities(&self, group: &Group) -> Command {
        let FoundCluster { cluster_name, cluster_id, .. } = &self.found;
        let authorities = generate_authorities(cluster_name, cluster_id);
        Command::InstallAuthorities(Box::new(InstallAuthorities { authorities, by: group.me() }))
    }
}

/// Generates the authorities of a new cluster, with new keys.
pub fn generate_authorities(cluster_name: &str, cluster_id: &ClusterId) -> Authorities {
    let now = clock::now();
    let create = |kind| Authority::create(kind, cluster_name, cluster_id, now);
    Authorities {
        machine: create(AuthorityKind::Machine),
        etcd: create(AuthorityKind::Etcd),
        kubernetes: create(AuthorityKind::Kubernetes),
        front_proxy: create(AuthorityKind::FrontProxy),
        service_account: ServiceAccountKey::create(),
    }
}

/// Proposes missing commands while this node leads; returns when both are applied.
pub async fn run(founding: Founding, group: Group, stop: CancellationToken) {
    let mut metrics = group.metrics();
    loop {
        let state = group.state();
        match founding.next_command(&state, &group) {
            None => return,
            Some(command) if group.is_leader() => match group.propose(command).await {
                Ok(outcome) => info!(?outcome, "founding step committed"),
                Err(error) => warn!(%error, "founding step not committed; retrying"),
            },
            Some(_) => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = metrics.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RESYNC_INTERVAL) => {}
        }
    }
}
