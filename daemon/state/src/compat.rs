//! Encoded samples of what the Raft log and its snapshots hold. See `muster_compat`.

use muster_compat::{check, sample, with_new_fields_msgpack};
use muster_types::etcd::{DataState, EtcdGeneration};
use muster_types::{DurationMillis, OperatorRole, Role};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{decode, encode};
use crate::command::{
    Admit, CreateToken, FoundCluster, Founder, Grant, Operator, RecordAudit, Remove, RevokeToken,
};
use crate::etcd::{EtcdChange, EtcdReport};
use crate::fixtures::{
    ADMIN, Replica, START, address, admit, by, create, etcd_id, found, founding_token, grant, id,
    key, name, report, token_id, verifier,
};
use crate::{
    Actor, ClusterState, Command, Outcome, Refusal, RefusalKind, Report, TimestampedCommand,
};

/// Fields of the state whose keys are data.
const MAPS: [&str; 7] =
    ["operators", "members", "removed", "tokens", "founders", "nodes", "leftover_members"];

/// Checks that the sample is what `value` encodes to, and that it decodes to `value`, also with
/// fields that this version does not know.
fn guarded<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, value: &T) {
    let bytes = check(&format!("state/{name}.hex"), &encode(value));
    assert_eq!(decode::<T>(&bytes, "sample").unwrap(), *value, "{name}");
    let extended = with_new_fields_msgpack(&bytes, &MAPS);
    assert_ne!(extended, bytes, "{name}");
    assert_eq!(decode::<T>(&extended, "sample").unwrap(), *value, "{name} with new fields");
}

fn etcd_report() -> EtcdReport {
    EtcdReport {
        generation: EtcdGeneration::FIRST,
        data: DataState::Present,
        version: "3.4.23".to_owned(),
    }
}

/// Every command but [`Command::InstallAuthorities`], whose keys are random.
fn commands() -> Vec<(&'static str, Command)> {
    let generation = EtcdGeneration::FIRST;
    let (node, member_id, peer_url) = (id(4), etcd_id(44), "https://10.0.0.4:2380".to_owned());
    let founders = vec![Founder { public_key: key(1), name: name(1), addresses: vec![address(1)] }];
    let operator =
        |n, role: OperatorRole| Operator { public_key: key(n), name: format!("person-{n}"), role };
    let grant = Grant {
        roles: [Role::ControlPlane, Role::Worker].into(),
        ttl: Some(DurationMillis::from_millis(3_600_000)),
        uses_allowed: Some(3),
        node_name: Some(name(7)),
        description: "rack 7".to_owned(),
    };
    vec![
        (
            "found-cluster",
            Command::FoundCluster(Box::new(FoundCluster {
                founders,
                operators: vec![
                    operator(201, OperatorRole::Admin),
                    operator(202, OperatorRole::Operator),
                    operator(203, OperatorRole::Reader),
                ],
                ..found(1)
            })),
        ),
        ("admit", Command::Admit(Admit { version: "0.1.0".to_owned(), ..admit(7, Role::Worker) })),
        ("remove", Command::Remove(Remove { node, by: Actor::Node(id(1)), force: true })),
        ("report", Command::Report(Report { etcd: Some(etcd_report()), ..report(1) })),
        ("report-of-a-worker", Command::Report(report(7))),
        (
            "create-token",
            Command::CreateToken(CreateToken {
                token: token_id("abcdefgh27"),
                verifier: verifier(2),
                grant,
                by: by(ADMIN),
            }),
        ),
        (
            "revoke-token",
            Command::RevokeToken(RevokeToken { token: founding_token(), by: Actor::Cluster }),
        ),
        ("etcd-started", Command::Etcd(EtcdChange::Started { node, generation, member_id })),
        (
            "etcd-added",
            Command::Etcd(EtcdChange::Added {
                node,
                generation,
                member_id,
                peer_url: peer_url.clone(),
            }),
        ),
        ("etcd-promoted", Command::Etcd(EtcdChange::Promoted { node, generation, member_id })),
        ("etcd-removed", Command::Etcd(EtcdChange::Removed { node, generation })),
        (
            "etcd-peer-url-changed",
            Command::Etcd(EtcdChange::PeerUrlChanged { node, generation, peer_url }),
        ),
        (
            "record-audit",
            Command::RecordAudit(RecordAudit {
                by: id(1),
                action: "join".to_owned(),
                subject: "worker-1".to_owned(),
                outcome: "refused".to_owned(),
            }),
        ),
        ("barrier", Command::Barrier),
    ]
}

#[test]
fn commands_are_read_as_they_were_written() {
    for (name, command) in commands() {
        let stamped = TimestampedCommand { now: START, command };
        guarded(&format!("command-{name}"), &stamped);
    }
}

/// A new variant without a sample fails to compile here.
#[test]
fn every_command_has_a_sample() {
    let kind = |command: &Command| match command {
        Command::FoundCluster(_) => 0,
        Command::InstallAuthorities(_) => 1,
        Command::Admit(_) => 2,
        Command::Remove(_) => 3,
        Command::Report(_) => 4,
        Command::CreateToken(_) => 5,
        Command::RevokeToken(_) => 6,
        Command::Etcd(EtcdChange::Started { .. }) => 7,
        Command::Etcd(EtcdChange::Added { .. }) => 8,
        Command::Etcd(EtcdChange::Promoted { .. }) => 9,
        Command::Etcd(EtcdChange::Removed { .. }) => 10,
        Command::Etcd(EtcdChange::PeerUrlChanged { .. }) => 11,
        Command::RecordAudit(_) => 12,
        Command::Barrier => 13,
    };
    let mut kinds: Vec<_> = commands().iter().map(|(_, command)| kind(command)).collect();
    let installed = sample("state/command-install-authorities.hex");
    let installed: TimestampedCommand = decode(&installed, "sample").unwrap();
    kinds.push(kind(&installed.command));
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, (0..14).collect::<Vec<_>>());
}

/// The sample was written once: the authorities in it have random keys.
#[test]
fn authorities_are_read_as_they_were_written() {
    let file = "state/command-install-authorities.hex";
    if std::env::var_os(muster_compat::BLESS).is_some() {
        let command = crate::fixtures::install(0, 1);
        muster_compat::write_once(file, &encode(&TimestampedCommand { now: START, command }));
    }
    let bytes = sample(file);
    let read: TimestampedCommand = decode(&bytes, "sample").unwrap();
    assert_eq!(encode(&read), bytes, "this build writes another encoding");
    let extended = with_new_fields_msgpack(&bytes, &MAPS);
    assert_eq!(decode::<TimestampedCommand>(&extended, "sample").unwrap(), read);
    let Command::InstallAuthorities(install) = &read.command else { panic!("{read:?}") };
    assert_eq!(install.by, id(1));
    let mut replica = Replica::founded(1);
    replica.done(read.command.clone());
    let subjects = install.authorities.all().map(|authority| authority.kind().to_string());
    assert_eq!(subjects, ["machine", "etcd", "kubernetes", "front-proxy"]);
}

#[test]
fn outcomes_are_read_as_they_were_written() {
    let refusal = Refusal::new(RefusalKind::QuorumAtRisk, "etcd would lose its quorum");
    let outcomes = [
        ("admitted", Outcome::Admitted { node: id(7), already_member: true }),
        ("removed", Outcome::Removed { node: id(7), name: name(7) }),
        ("refused", Outcome::Refused(refusal)),
    ];
    for (name, outcome) in outcomes {
        guarded(&format!("outcome-{name}"), &outcome);
    }
    for (name, outcome) in [("done", Outcome::Done), ("unchanged", Outcome::Unchanged)] {
        let bytes = check(&format!("state/outcome-{name}.hex"), &encode(&outcome));
        assert_eq!(decode::<Outcome>(&bytes, "sample").unwrap(), outcome);
    }
    guarded("etcd-report", &etcd_report());
}

/// The kinds of refusal are names in the encoding. A new one without a sample fails to compile here.
#[test]
fn refusals_keep_their_kinds() {
    let kinds = [
        RefusalKind::NotFounded,
        RefusalKind::AlreadyFounded,
        RefusalKind::Conflict,
        RefusalKind::NotNow,
        RefusalKind::NameTaken,
        RefusalKind::Removed,
        RefusalKind::Token,
        RefusalKind::Invalid,
        RefusalKind::NotAMember,
        RefusalKind::NoSuchToken,
        RefusalKind::LastControlPlane,
        RefusalKind::QuorumAtRisk,
        RefusalKind::Full,
        RefusalKind::NotAllowed,
        RefusalKind::Stale,
    ];
    let number = |kind: &RefusalKind| match kind {
        RefusalKind::NotFounded => 0,
        RefusalKind::AlreadyFounded => 1,
        RefusalKind::Conflict => 2,
        RefusalKind::NotNow => 3,
        RefusalKind::NameTaken => 4,
        RefusalKind::Removed => 5,
        RefusalKind::Token => 6,
        RefusalKind::Invalid => 7,
        RefusalKind::NotAMember => 8,
        RefusalKind::NoSuchToken => 9,
        RefusalKind::LastControlPlane => 10,
        RefusalKind::QuorumAtRisk => 11,
        RefusalKind::Full => 12,
        RefusalKind::NotAllowed => 13,
        RefusalKind::Stale => 14,
    };
    let numbers: Vec<_> = kinds.iter().map(number).collect();
    assert_eq!(numbers, (0..15).collect::<Vec<_>>());
    let bytes = check("state/refusal-kinds.hex", &encode(&kinds.to_vec()));
    assert_eq!(decode::<Vec<RefusalKind>>(&bytes, "sample").unwrap(), kinds);
}

/// A state with an entry in each of its collections, by commands.
fn state() -> ClusterState {
    let mut replica = Replica::founded(3);
    for number in 1..=3 {
        let change = EtcdChange::Started {
            node: id(number),
            generation: EtcdGeneration::FIRST,
            member_id: etcd_id(u64::from(number)),
        };
        replica.done(Command::Report(Report { etcd: Some(etcd_report()), ..report(number) }));
        replica.done(Command::Etcd(change));
    }
    replica.done(create("abcdefgh27", Grant { uses_allowed: Some(2), ..grant(&[Role::Worker]) }));
    for (number, role) in [(4, Role::ControlPlane), (7, Role::Worker), (8, Role::Worker)] {
        replica.done(Command::Admit(admit(number, role)));
    }
    replica.done(crate::fixtures::remove(8));
    replica.done(crate::fixtures::remove(3));
    replica.done(Command::RevokeToken(RevokeToken { token: founding_token(), by: by(ADMIN) }));
    replica.state
}

#[test]
fn a_state_is_read_as_it_was_written() {
    guarded("cluster-state", &state());
    guarded("cluster-state-empty", &ClusterState::default());
}

/// The rest of a state is unchanged by commands of later versions that it skipped; what a state
/// lacks takes its default.
#[test]
fn a_state_without_its_fields_is_the_empty_one() {
    let empty_map = [0x80];
    assert_eq!(decode::<ClusterState>(&empty_map, "state").unwrap(), ClusterState::default());
}
