//! What one etcd member is to be, and the command line that makes it so.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_types::NodeName;
use serde::{Deserialize, Serialize};

use super::binary::{Binary, Version};
use super::credentials::{Credentials, Paths};
use super::home::Home;
use crate::supervisor::Command;

/// Which of the members that this node has been, one after the other: a member that lost its data
/// or was removed never comes back, its node becomes a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u32);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a member begins a cluster or enters one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InitialState {
    /// One of the founders, all of which start with the same members and token.
    New,
    /// Added to a running cluster before.
    Existing,
}

/// How a member starts for the first time. Of no effect ever after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initial {
    pub state: InitialState,
    /// The same for all founders, another for every cluster: it goes into etcd's ids.
    pub token: String,
    /// Name and peer address of every member, this one included.
    pub members: BTreeMap<NodeName, SocketAddr>,
}

/// What may differ from etcd's defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Bytes of database at which writes are refused.
    pub quota: u64,
    /// How much history is kept. Kubernetes compacts by itself every five minutes; this is for
    /// whatever else writes.
    pub keep_history: Duration,
    pub heartbeat: Duration,
    /// At least ten times the round trip between members, and several heartbeats.
    pub election: Duration,
}

impl Default for Tuning {
    /// etcd's own timing; the largest quota that its authors recommend (8 GiB) and a history of 8 h.
    fn default() -> Self {
        Self {
            quota: 8 << 30,
            keep_history: Duration::from_hours(8),
            heartbeat: Duration::from_millis(100),
            election: Duration::from_secs(1),
        }
    }
}

/// One member, fully described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    pub binary: Binary,
    pub generation: Generation,
    pub name: NodeName,
    pub initial: Initial,
    /// The cluster has heard of this generation running. If nothing of it is on disk, then it is
    /// lost, and must not be started as if it were new.
    pub heard_of: bool,
    /// Where it listens to members, and where they reach it once it has begun.
    pub peer: SocketAddr,
    /// Where it listens to clients, and where they reach it.
    pub client: SocketAddr,
    pub tuning: Tuning,
    pub credentials: Credentials,
}

/// The URL under which a member or its clients reach an address.
pub fn url(address: SocketAddr) -> String {
    format!("https://{address}")
}

/// Between the first starts of two founders: several times what etcd takes from listening to
/// answering (30 ms on a busy machine).
const FOUNDERS_APART: Duration = Duration::from_millis(100);

/// The first version whose authors support 64-bit Arm; older ones run there when told to.
const ARM64_SUPPORTED: Version = Version { major: 3, minor: 5, patch: 0 };

/// Log entries between two of etcd's own snapshots. Its default of 100 000 until 3.5 holds them all
/// in memory and sends them one by one to a learner.
const SNAPSHOT_COUNT: u32 = 10_000;

/// The first version that asks for votes in two steps unless told otherwise.
const PRE_VOTE_BY_DEFAULT: Version = Version { major: 3, minor: 5, patch: 0 };

impl Spec {
    /// The command that runs this member with its data in `home`. Holds no secret.
    pub(super) fn command(&self, home: &Home) -> Command {
        Command {
            program: self.binary.path.clone(),
            arguments: self.arguments(home).into_iter().map(OsString::from).collect(),
            // etcd reads settings from ETCD_… variables: it gets none.
            environment: self.environment(),
            directory: home.root().to_owned(),
        }
    }

    /// Where the others are told to reach it when it first starts: what was agreed on before, also
    /// when its node has moved meanwhile. etcd refuses to begin with anything else, and its ids are
    /// made of it; the new address is told to the cluster once the member is part of it.
    pub(super) fn first_peer(&self) -> SocketAddr {
        self.initial.members.get(&self.name).copied().unwrap_or(self.peer)
    }

    fn environment(&self) -> BTreeMap<OsString, OsString> {
        let mut environment = BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]);
        if cfg!(target_arch = "aarch64") && self.binary.version < ARM64_SUPPORTED {
            environment.insert("ETCD_UNSUPPORTED_ARCH".into(), "arm64".into());
        }
        environment
    }

    /// How long a founder holds its first start back, by its place among the founders.
    ///
    /// A founding etcd asks the others whether it was a member already, and gives each 2 s. One
    /// that is down refuses at once, one that runs answers at once, but two that are both just
    /// starting accept each other's connection and then wait for each other: measured in a quarter
    /// of all births when three start in the same instant. The steps keep them apart; the first
    /// two make the majority, so the last one's delay costs nothing.
    pub(super) fn first_start_delay(&self) -> Duration {
        let Initial { state, members, .. } = &self.initial;
        let place = members.keys().take_while(|name| **name != self.name).count();
        match state {
            InitialState::New => FOUNDERS_APART * u32::try_from(place.min(8)).unwrap_or(0),
            InitialState::Existing => Duration::ZERO,
        }
    }

    fn arguments(&self, home: &Home) -> Vec<String> {
        let paths = Paths::in_home(home.root());
        let mut arguments = Vec::new();
        let mut set = |name: &str, value: &str| arguments.push(format!("--{name}={value}"));
        set("name", self.name.as_str());
        set("data-dir", &text(&home.data(self.generation)));
        set("listen-peer-urls", &url(self.peer));
        set("initial-advertise-peer-urls", &url(self.first_peer()));
        set("listen-client-urls", &url(self.client));
        set("advertise-client-urls", &url(self.client));
        self.first_start(&mut set);
        for (side, own) in [("", &paths.server), ("peer-", &paths.peer)] {
            // One file holds both, see `credentials`.
            set(&format!("{side}cert-file"), &text(own));
            set(&format!("{side}key-file"), &text(own));
            set(&format!("{side}trusted-ca-file"), &text(&paths.authorities));
            set(&format!("{side}client-cert-auth"), "true");
        }
        if self.binary.version < PRE_VOTE_BY_DEFAULT {
            // A member that was cut off must not depose the leader when it comes back.
            set("pre-vote", "true");
        }
        let Tuning { quota, keep_history, heartbeat, election } = &self.tuning;
        set("heartbeat-interval", &heartbeat.as_millis().to_string());
        set("election-timeout", &election.as_millis().to_string());
        set("quota-backend-bytes", &quota.to_string());
        set("auto-compaction-mode", "periodic");
        set("auto-compaction-retention", &format!("{}s", keep_history.as_secs()));
        set("snapshot-count", &SNAPSHOT_COUNT.to_string());
        set("logger", "zap");
        set("log-outputs", "stderr");
        arguments
    }

    fn first_start(&self, set: &mut impl FnMut(&str, &str)) {
        let Initial { state, token, members } = &self.initial;
        let members: Vec<_> =
            members.iter().map(|(name, peer)| format!("{name}={}", url(*peer))).collect();
        let state = match state {
            InitialState::New => "new",
            InitialState::Existing => "existing",
        };
        set("initial-cluster", &members.join(","));
        set("initial-cluster-state", state);
        set("initial-cluster-token", token);
    }
}

/// A path as an argument. Muster's own paths come from its configuration, which is UTF-8.
pub(super) fn text(path: &Path) -> String {
    PathBuf::from(path).to_string_lossy().into_owned()
}
