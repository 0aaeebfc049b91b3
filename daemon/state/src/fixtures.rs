//! Test fixtures: a replica that runs commands, and nodes by number.

#![allow(clippy::unwrap_used, reason = "values for tests")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use muster_pki::authority::{Authority, AuthorityKind, ServiceAccountKey};
use muster_pki::token::{TokenId, Verifier};
use muster_types::etcd::EtcdMemberId;
use muster_types::{
    ClusterId, ConfigVersion, LogIndex, NodeId, NodeName, OperatorRole, PublicKey, Role, UnixMillis,
};

use super::command::{
    Admit, CreateToken, FoundCluster, Founder, Grant, InstallAuthorities, Operator, Remove,
};
use super::{
    Actor, Authorities, ClusterState, Command, Outcome, Refusal, Report, TimestampedCommand,
};

/// The time of the first command.
pub const START: UnixMillis = UnixMillis::from_millis(1_700_000_000_000);

/// A state with its last index and clock; both increase with each command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    pub state: ClusterState,
    pub index: LogIndex,
    pub now: UnixMillis,
}

impl Default for Replica {
    fn default() -> Self {
        Self::new()
    }
}

impl Replica {
    pub fn new() -> Self {
        Self { state: ClusterState::default(), index: LogIndex(0), now: START }
    }

    /// A cluster of the nodes 1 to `founders`.
    pub fn founded(founders: u8) -> Self {
        let mut replica = Self::new();
        assert_eq!(replica.run(Command::FoundCluster(Box::new(found(founders)))), Outcome::Done);
        replica
    }

    pub fn run(&mut self, command: Command) -> Outcome {
        self.index.0 += 1;
        self.advance(1);
        self.state.apply(self.index, &TimestampedCommand { now: self.now, command })
    }

    /// Moves the clock forward.
    pub fn advance(&mut self, millis: u64) {
        self.now = self.now.saturating_add(Duration::from_millis(millis));
    }

    pub fn refused(&mut self, command: Command) -> Refusal {
        match self.run(command) {
            Outcome::Refused(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Runs a command that must succeed.
    pub fn done(&mut self, command: Command) {
        let outcome = self.run(command);
        assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }

    /// The state as restored from a snapshot.
    pub fn restored(&self) -> ClusterState {
        rmp_serde::from_slice(&rmp_serde::to_vec_named(&self.state).unwrap()).unwrap()
    }
}

pub fn key(number: u8) -> PublicKey {
    PublicKey::from_bytes([number; 32])
}

pub fn id(number: u8) -> NodeId {
    super::node_id(&key(number))
}

pub fn name(number: u8) -> NodeName {
    format!("node-{number}").parse().unwrap()
}

pub fn address(number: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, number), 50_000))
}

/// The etcd member with this number.
pub const fn etcd_id(number: u64) -> EtcdMemberId {
    EtcdMemberId(number)
}

pub const ADMIN: u8 = 201;
pub const OPERATOR: u8 = 202;
pub const READER: u8 = 203;

pub fn by(operator: u8) -> Actor {
    Actor::Operator(key(operator))
}

pub fn token_id(text: &str) -> TokenId {
    text.parse().unwrap()
}

pub fn founding_token() -> TokenId {
    token_id("foundingaa")
}

pub fn verifier(number: u8) -> Verifier {
    Verifier::from_bytes(&[number; 64]).unwrap()
}

pub fn found(founders: u8) -> FoundCluster {
    let founder = |n| Founder { public_key: key(n), name: name(n), addresses: vec![address(n)] };
    let operator =
        |n, role: OperatorRole| Operator { public_key: key(n), name: role.to_string(), role };
    FoundCluster {
        cluster_id: ClusterId::from_bytes([9; 32]),
        cluster_name: "demo".to_owned(),
        certificate: vec![1, 2, 3],
        founders: (1..=founders).map(founder).collect(),
        operators: vec![
            operator(ADMIN, OperatorRole::Admin),
            operator(OPERATOR, OperatorRole::Operator),
            operator(READER, OperatorRole::Reader),
        ],
        token: founding_token(),
        verifier: verifier(1),
        config_digest: [5; 32],
    }
}

pub fn admit(number: u8, role: Role) -> Admit {
    Admit {
        public_key: key(number),
        name: name(number),
        role,
        addresses: vec![address(number)],
        version: "0.1.0".to_owned(),
        token: founding_token(),
        verified_by: id(1),
    }
}

pub fn remove(number: u8) -> Command {
    Command::Remove(Remove { node: id(number), by: by(ADMIN), force: false })
}

pub fn report(number: u8) -> Report {
    Report {
        node: id(number),
        addresses: vec![address(number)],
        version: "0.1.0".to_owned(),
        config_version: ConfigVersion::FIRST,
        etcd: None,
    }
}

pub fn grant(roles: &[Role]) -> Grant {
    Grant {
        roles: roles.iter().copied().collect(),
        ttl: None,
        uses_allowed: None,
        node_name: None,
        description: String::new(),
    }
}

pub fn create(token: &str, grant: Grant) -> Command {
    Command::CreateToken(CreateToken {
        token: token_id(token),
        verifier: verifier(2),
        grant,
        by: by(ADMIN),
    })
}

fn authorities() -> Authorities {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(START.as_millis().unsigned_abs());
    let cluster = ClusterId::from_bytes([9; 32]);
    let create = |kind| Authority::create(kind, "demo", &cluster, now);
    Authorities {
        machine: create(AuthorityKind::Machine),
        etcd: create(AuthorityKind::Etcd),
        kubernetes: create(AuthorityKind::Kubernetes),
        front_proxy: create(AuthorityKind::FrontProxy),
        service_account: ServiceAccountKey::create(),
    }
}

/// Two sets of authorities, as from two leaders. Created once because they are expensive.
static AUTHORITIES: LazyLock<[Authorities; 2]> = LazyLock::new(|| [authorities(), authorities()]);

pub fn install(set: usize, leader: u8) -> Command {
    let authorities = AUTHORITIES[set % 2].clone();
    Command::InstallAuthorities(Box::new(InstallAuthorities { authorities, by: id(leader) }))
}
