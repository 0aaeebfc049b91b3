//! Description of one etcd member, and its command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_types::NodeName;
use muster_types::etcd::{EtcdGeneration, InitialClusterState, initial_cluster, url};

use super::binary::{Binary, Version};
use super::credentials::{CredentialPaths, Credentials};
use super::dir::EtcdDir;
use super::start_record::InitialCluster;
use crate::supervisor::Command;

/// Settings that may differ from etcd's defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Bytes of database at which writes are refused.
    pub quota: u64,
    /// Retention of history. Kubernetes compacts every five minutes itself; this covers other
    /// clients.
    pub history_retention: Duration,
    /// Heartbeat interval of the leader.
    pub heartbeat: Duration,
    /// Election timeout: at least ten round trips between members, and several heartbeats.
    pub election: Duration,
}

impl Default for Tuning {
    /// etcd's own timing, the largest quota that its authors recommend (8 GiB), a history of 8 h.
    fn default() -> Self {
        Self {
            quota: 8 << 30,
            history_retention: Duration::from_hours(8),
            heartbeat: Duration::from_millis(100),
            election: Duration::from_secs(1),
        }
    }
}

/// Full description of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdSpec {
    pub binary: Binary,
    pub generation: EtcdGeneration,
    pub name: NodeName,
    pub initial: InitialCluster,
    /// The cluster knows that this generation has run. If nothing of it is on disk, its data is
    /// lost, and it must not start as if it were new.
    pub known_to_cluster: bool,
    /// Listen address for peers, advertised to them after the first start.
    pub peer: SocketAddr,
    /// Listen address for clients, also advertised to them.
    pub client: SocketAddr,
    pub tuning: Tuning,
    pub credentials: Credentials,
}

/// Delay between the first starts of two founders: several times the time that etcd takes from
/// listening to answering (30 ms on a busy machine).
const FOUNDER_START_INTERVAL: Duration = Duration::from_millis(100);

/// First version with official support for 64-bit Arm; older ones need an environment variable.
const ARM64_SUPPORTED: Version = Version { major: 3, minor: 5, patch: 0 };

/// Log entries between two of etcd's own snapshots. Until 3.5 its default is 100,000: it keeps all
/// of them in memory and sends them one by one to a learner.
const SNAPSHOT_COUNT: u32 = 10_000;

/// First version that enables pre-vote by default.
const PRE_VOTE_BY_DEFAULT: Version = Version { major: 3, minor: 5, patch: 0 };

impl EtcdSpec {
    /// Command that runs this member with its data in `dir`. Contains no secret.
    pub(super) fn command(&self, dir: &EtcdDir) -> Command {
        Command {
            program: self.binary.path.clone(),
            arguments: self.arguments(dir).into_iter().map(OsString::from).collect(),
            // etcd reads settings from ETCD_… variables: pass none.
            environment: self.environment(),
            directory: dir.root().to_owned(),
        }
    }

    /// Peer URL advertised at the first start: the agreed one, even if the node's address has
    /// changed since. etcd refuses to start with any other and derives its ids from it. The new
    /// address is announced once the member is part of the cluster.
    pub(super) fn initial_peer_url(&self) -> String {
        self.initial.peer_url(&self.name).map_or_else(|| url(self.peer), str::to_owned)
    }

    fn environment(&self) -> BTreeMap<OsString, OsString> {
        let mut environment = BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]);
        if cfg!(target_arch = "aarch64") && self.binary.version < ARM64_SUPPORTED {
            environment.insert("ETCD_UNSUPPORTED_ARCH".into(), "arm64".into());
        }
        environment
    }

    /// Delay of a founder's first start, by its position among the founders.
    ///
    /// A founding etcd asks the others whether it was a member already, with a timeout of 2 s each.
    /// A stopped one refuses at once and a running one answers at once. But two that are both just
    /// starting accept each other's connection and then wait for each other: measured in a quarter
    /// of all births when three start in the same instant. The delays keep them apart. The first
    /// two are a majority, so the last one's delay costs nothing.
    pub(super) fn first_start_delay(&self) -> Duration {
        let InitialCluster { state, members, .. } = &self.initial;
        let place = members.iter().take_while(|peer| peer.name != self.name).count();
        match state {
            InitialClusterState::New => {
                FOUNDER_START_INTERVAL * u32::try_from(place.min(8)).unwrap_or(0)
            }
            InitialClusterState::Existing => Duration::ZERO,
        }
    }

    fn arguments(&self, dir: &EtcdDir) -> Vec<String> {
        let paths = CredentialPaths::in_dir(dir.root());
        let mut arguments = Vec::new();
        let mut set = |name: &str, value: &str| arguments.push(format!("--{name}={value}"));
        set("name", self.name.as_str());
        set("data-dir", &path_argument(&dir.data(self.generation)));
        set("listen-peer-urls", &url(self.peer));
        set("initial-advertise-peer-urls", &self.initial_peer_url());
        set("listen-client-urls", &url(self.client));
        set("advertise-client-urls", &url(self.client));
        self.initial_cluster_arguments(&mut set);
        for (side, own) in [("", &paths.server), ("peer-", &paths.peer)] {
            // One file holds certificate and key, see `credentials`.
            set(&format!("{side}cert-file"), &path_argument(own));
            set(&format!("{side}key-file"), &path_argument(own));
            set(&format!("{side}trusted-ca-file"), &path_argument(&paths.authorities));
            set(&format!("{side}client-cert-auth"), "true");
        }
        if self.binary.version < PRE_VOTE_BY_DEFAULT {
            // A partitioned member must not depose the leader when it returns.
            set("pre-vote", "true");
        }
        let Tuning { quota, history_retention, heartbeat, election } = &self.tuning;
        set("heartbeat-interval", &heartbeat.as_millis().to_string());
        set("election-timeout", &election.as_millis().to_string());
        set("quota-backend-bytes", &quota.to_string());
        set("auto-compaction-mode", "periodic");
        set("auto-compaction-retention", &format!("{}s", history_retention.as_secs()));
        set("snapshot-count", &SNAPSHOT_COUNT.to_string());
        set("logger", "zap");
        set("log-outputs", "stderr");
        arguments
    }

    fn initial_cluster_arguments(&self, set: &mut impl FnMut(&str, &str)) {
        let InitialCluster { state, token, members } = &self.initial;
        let state = match state {
            InitialClusterState::New => "new",
            InitialClusterState::Existing => "existing",
        };
        set("initial-cluster", &initial_cluster(members));
        set("initial-cluster-state", state);
        set("initial-cluster-token", token);
    }
}

/// Path as a command line argument. Muster's paths come from its configuration, which is UTF-8.
pub(super) fn path_argument(path: &Path) -> String {
    PathBuf::from(path).to_string_lossy().into_owned()
}
