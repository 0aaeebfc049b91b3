//! Fuzz targets of the replicated state. Applying any committed command ends, keeps every bound and
//! leaves a state that a snapshot restores. See `muster_fuzz` for the targets.

use muster_fuzz::{Verdict, refused, target};
use muster_messages::node::ReportRequest;
use muster_types::address::parse_addresses;
use muster_types::etcd::{DataState, EtcdGeneration};
use muster_types::{ConfigVersion, Role, UnixMillis};
use prost::Message as _;

use super::{decode, encode};
use crate::command::{RecordAudit, RevokeToken};
use crate::etcd::EtcdReport;
use crate::fixtures::{
    ADMIN, Replica, START, admit, by, create, found, founding_token, grant, id, install, remove,
    report,
};
use crate::{Command, Outcome, Report, limits, view};

/// Encodes commands, each after the leader's stamp (eight bytes) and its length (two).
fn written(commands: &[Command]) -> Vec<u8> {
    let one = |command| {
        let bytes = encode(command);
        let length = u16::try_from(bytes.len()).expect("it is short").to_be_bytes();
        [&START.as_millis().to_be_bytes()[..], &length, &bytes].concat()
    };
    commands.iter().flat_map(one).collect()
}

/// Commands from a member's proposal or from the log.
#[test]
fn commands() {
    let audit = RecordAudit {
        by: id(1),
        action: "join".to_owned(),
        subject: "worker-1".to_owned(),
        outcome: "refused".to_owned(),
    };
    let revoke = RevokeToken { token: founding_token(), by: by(ADMIN) };
    let seeds = [
        vec![Command::FoundCluster(Box::new(found(3)))],
        vec![Command::Admit(admit(7, Role::Worker)), remove(7)],
        vec![remove(3), Command::Admit(admit(3, Role::ControlPlane))],
        vec![Command::Report(report(1))],
        vec![create("abcdefgh27", grant(&[Role::Worker])), Command::RevokeToken(revoke)],
        vec![Command::RecordAudit(audit)],
    ];
    let founded = Replica::founded(3);
    let seeds = seeds.map(|commands| written(&commands));
    target("commands").seeds(seeds).longest(8 << 10).memory(4 << 20, 256).run(move |bytes| {
        let mut replica = founded.clone();
        let (mut rest, mut taken) = (bytes, 0);
        while let Some((head, after)) = rest.split_first_chunk::<10>() {
            let (stamp, length) = head.split_first_chunk::<8>().expect("eight of ten");
            replica.now = UnixMillis::from_millis(i64::from_be_bytes(*stamp).saturating_sub(1));
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            let (body, after) = after.split_at_checked(length).unwrap_or((after, &[]));
            rest = after;
            let command: Command = match decode(body, "command") {
                Ok(command) => command,
                Err(error) => return refused(error),
            };
            let again: Command = decode(&encode(&command), "command").expect("just encoded");
            assert_eq!(again, command);
            if let Outcome::Refused(refusal) = replica.run(command) {
                refused(refusal.message);
            }
            taken += 1;
        }
        assert_eq!(replica.restored(), replica.state, "a snapshot restores another state");
        bounded(&replica);
        if taken == 0 { refused("no command") } else { Verdict::Accepted }
    });
}

fn bounded(replica: &Replica) {
    let state = &replica.state;
    for member in state.members() {
        assert!((1..=limits::MAX_ADDRESSES).contains(&member.addresses.len()), "{member:?}");
        assert!(member.version.len() <= limits::MAX_VERSION, "{member:?}");
    }
    // The view and the operators' replies stay within their bounds.
    let seen = view::cluster_view(state).encode_to_vec();
    assert!(seen.len() < 1 << 20, "{} bytes", seen.len());
    assert!(view::tokens(state, replica.now).tokens.len() <= limits::MAX_TOKENS);
    let audit = view::audit(state, 0);
    for entry in &audit.entries {
        let long = [&entry.actor, &entry.action, &entry.subject]
            .iter()
            .any(|text| text.len() > limits::MAX_AUDIT_TEXT);
        assert!(!long && entry.outcome.len() <= limits::MAX_AUDIT_OUTCOME, "{entry:?}");
    }
}

/// Authorities; a separate target because the command is large.
#[test]
fn install_authorities() {
    let seeds = [0, 1].map(|set| encode(&install(set, 1)));
    let founded = Replica::founded(3);
    let run = move |bytes: &[u8]| {
        let command: Command = match decode(bytes, "command") {
            Ok(command) => command,
            Err(error) => return refused(error),
        };
        let mut replica = founded.clone();
        replica.run(command);
        assert_eq!(replica.restored(), replica.state);
        Verdict::Accepted
    };
    target("install_authorities").seeds(seeds).memory(4 << 20, 256).tries(1000).run(run);
}

/// A member's report: the conversion of the call, then the command.
#[test]
fn node_report() {
    let etcd = EtcdReport {
        generation: EtcdGeneration::FIRST,
        data: DataState::Present,
        version: "3.5.9".to_owned(),
    };
    let mine = report(1);
    let request = ReportRequest {
        addresses: mine.addresses.iter().map(ToString::to_string).collect(),
        version: mine.version,
        etcd: encode(&etcd),
    };
    let founded = Replica::founded(3);
    target("node_report").seed(request.encode_to_vec()).memory(4 << 20, 256).run(move |bytes| {
        let ReportRequest { addresses, version, etcd } = match ReportRequest::decode(bytes) {
            Ok(request) => request,
            Err(error) => return refused(error),
        };
        let etcd: Option<EtcdReport> = match etcd.as_slice() {
            [] => None,
            bytes => match decode(bytes, "etcd report") {
                Ok(etcd) => Some(etcd),
                Err(error) => return refused(error),
            },
        };
        let addresses = parse_addresses(&addresses);
        assert!(addresses.len() <= limits::MAX_ADDRESSES);
        let report =
            Report { node: id(1), addresses, version, config_version: ConfigVersion::FIRST, etcd };
        let mut replica = founded.clone();
        let would_change = replica.state.would_change(&report);
        let outcome = replica.run(Command::Report(report.clone()));
        bounded(&replica);
        assert_eq!(replica.restored(), replica.state);
        if let Outcome::Refused(refusal) = outcome {
            return refused(refusal.message);
        }
        assert!(would_change || !replica.state.would_change(&report));
        Verdict::Accepted
    });
}
