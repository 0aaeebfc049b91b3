//! Fuzz target for operators' requests: converts each message as its call does, and applies the
//! resulting command to the state. See `muster_fuzz`.

use std::time::Duration;

use muster_fuzz::{Verdict, refused, target};
use muster_messages::operator as wire;
use muster_types::{ClusterId, LogIndex, OperatorRole, PublicKey, UnixMillis};
use prost::Message as _;

use super::{etcd, tokens};
use muster_state::command::{FoundCluster, Founder, Operator};
use muster_state::{ClusterState, Command, Outcome, TimestampedCommand, limits, view};

fn key(number: u8) -> PublicKey {
    PublicKey::from_bytes([number; 32])
}

fn founded() -> ClusterState {
    let mut state = ClusterState::default();
    let admin = OperatorRole::Admin;
    let found = FoundCluster {
        cluster_id: ClusterId::from_bytes([9; 32]),
        cluster_name: "demo".to_owned(),
        certificate: vec![1],
        founders: vec![Founder {
            public_key: key(1),
            name: "cp-1".parse().expect("a node name"),
            addresses: vec!["192.0.2.1:50000".parse().expect("an address")],
        }],
        operators: vec![Operator { public_key: key(2), name: "alice".to_owned(), role: admin }],
        token: "foundingaa".parse().expect("a token id"),
        verifier: muster_pki::token::Verifier::from_bytes(&[1; 64]).expect("64 bytes"),
        config_digest: [5; 32],
    };
    let command = Command::FoundCluster(Box::new(found));
    let now = UnixMillis::from_millis(1_700_000_000_000);
    let outcome = state.apply(LogIndex(1), &TimestampedCommand { now, command });
    assert_eq!(outcome, Outcome::Done);
    state
}

/// Prefixes a message with the number of its kind.
fn kind(number: u8, message: &impl prost::Message) -> Vec<u8> {
    [vec![number], message.encode_to_vec()].concat()
}

#[test]
fn operator_request() {
    let create = wire::CreateTokenRequest {
        id: "abcdefgh27".to_owned(),
        verifier: vec![2; 64],
        roles: vec![muster_messages::hello::NodeRole::Worker.into()],
        ttl_ms: 60_000,
        uses_allowed: 1,
        node_name: "worker-1".to_owned(),
        description: "for a worker".to_owned(),
    };
    let seeds = [
        kind(0, &create),
        kind(1, &wire::RevokeTokenRequest { id: "foundingaa".to_owned() }),
        kind(2, &wire::RemoveNodeRequest { node: "cp-1".to_owned(), force: true }),
        kind(3, &wire::EtcdClientConfigRequest { ttl_ms: 1000, ..Default::default() }),
        kind(4, &wire::ListAuditRequest { limit: 10 }),
        kind(5, &wire::EtcdDisarmRequest { corrupt_member: "cp-1".to_owned() }),
    ];
    let founded = founded();
    target("operator_request").seeds(seeds).memory(1 << 20, 128).run(move |bytes| {
        let Some((kind, body)) = bytes.split_first() else { return refused("empty input") };
        match kind % 6 {
            0 => created(&founded, body),
            1 => read(wire::RevokeTokenRequest::decode(body), |request| {
                tokens::parse_revoke_token(&request)
                    .map(drop)
                    .map_err(|status| status.message().to_owned())
            }),
            2 => read(wire::RemoveNodeRequest::decode(body), |request| {
                founded.find(&request.node).map(drop).map_err(|refusal| refusal.message)
            }),
            3 => read(wire::EtcdClientConfigRequest::decode(body), |request| {
                let lifetime = etcd::lifetime(&request).map_err(|s| s.message().to_owned())?;
                assert!(lifetime <= Duration::from_hours(24 * 30) && !lifetime.is_zero());
                Ok(())
            }),
            4 => read(wire::ListAuditRequest::decode(body), |request| {
                assert!(
                    view::audit(&founded, request.limit).entries.len() <= limits::MAX_AUDIT_ENTRIES
                );
                Ok(())
            }),
            _ => read(wire::EtcdDisarmRequest::decode(body), |_| Ok(())),
        }
    });
}

fn read<T>(
    decoded: Result<T, prost::DecodeError>,
    look: impl FnOnce(T) -> Result<(), String>,
) -> Verdict {
    match decoded {
        Err(error) => refused(error),
        Ok(message) => match look(message) {
            Err(why) => refused(why),
            Ok(()) => Verdict::Accepted,
        },
    }
}

/// Checks that the state bounds each token that the call accepts, or refuses it with a reason.
fn created(founded: &ClusterState, body: &[u8]) -> Verdict {
    read(wire::CreateTokenRequest::decode(body), |request| {
        let verifier = request.verifier.clone();
        let create =
            tokens::parse_create_token(key(2), request).map_err(|s| s.message().to_owned())?;
        assert_eq!(verifier, *create.verifier.to_bytes());
        let mut state = founded.clone();
        let id = create.token.clone();
        let now = state.now().saturating_add(Duration::from_millis(1));
        let command = Command::CreateToken(create);
        let stamped = TimestampedCommand { now, command };
        if let Outcome::Refused(refusal) = state.apply(LogIndex(2), &stamped) {
            return Err(refusal.message);
        }
        let token = state.token(&id).expect("just created");
        let shown = view::token(&id, token, now);
        assert!(shown.description.len() <= limits::MAX_DESCRIPTION && !shown.roles.is_empty());
        Ok(())
    })
}
