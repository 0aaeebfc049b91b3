//! Validation of what an authenticated peer sends before it is a member: presence, form and length of
//! every field. The bounds are in `muster_types::limits`.

use std::net::SocketAddr;

use muster_messages::hello::{Candidate, GreetRequest, Hint, JoinRequest, NodeRole};
use muster_types::NodeName;
use muster_types::limits::{
    MAX_ADDRESSES, MAX_BIRTH_FIELDS, MAX_FIELD_NAME, MAX_FIELD_VALUE, MAX_HINTS, MAX_VERSION,
    MAX_WAITING_FOR,
};
use tonic::Status;

fn invalid(what: &str) -> Status {
    Status::invalid_argument(format!("invalid message: {what}"))
}

fn require(fits: bool, what: &str) -> Result<(), Status> {
    if fits { Ok(()) } else { Err(invalid(what)) }
}

pub fn greet(request: &GreetRequest) -> Result<(), Status> {
    candidate(request.candidate.as_ref())?;
    require(request.peers.len() <= MAX_HINTS, "more than 64 peers")?;
    request.peers.iter().try_for_each(hint)
}

pub fn join(request: &JoinRequest) -> Result<(), Status> {
    candidate(request.candidate.as_ref())
}

fn candidate(candidate: Option<&Candidate>) -> Result<(), Status> {
    let me = candidate.ok_or_else(|| invalid("the sender is missing"))?;
    require(me.name.parse::<NodeName>().is_ok(), "the sender's name is not a node name")?;
    require(NodeRole::role_of(me.role).is_some(), "the sender's role is unknown")?;
    addresses(&me.addresses)?;
    require(me.version.len() <= MAX_VERSION, "the version is longer than 64 bytes")?;
    require(me.waiting_for.len() <= MAX_WAITING_FOR, "waiting_for is longer than 1024 bytes")?;
    require(matches!(me.cluster_id.len(), 0 | 32), "the cluster id is not 32 bytes long")?;
    let fields = &me.birth_fields;
    require(fields.len() <= MAX_BIRTH_FIELDS, "more than 32 birth fields")?;
    let fits = |(k, v): (&String, &String)| k.len() <= MAX_FIELD_NAME && v.len() <= MAX_FIELD_VALUE;
    require(fields.iter().all(fits), "a birth field is too long (name 128 bytes, value 1024)")
}

fn hint(hint: &Hint) -> Result<(), Status> {
    require(matches!(hint.node_id.len(), 0 | 32), "a node id is not 32 bytes long")?;
    addresses(&hint.addresses)
}

fn addresses(addresses: &[String]) -> Result<(), Status> {
    require(addresses.len() <= MAX_ADDRESSES, "more than 16 addresses")?;
    let fits = addresses.iter().all(|text| text.parse::<SocketAddr>().is_ok());
    require(fits, "an address does not have the form ip:port")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Candidate {
        Candidate {
            name: "cp-1".to_owned(),
            role: NodeRole::ControlPlane.into(),
            addresses: vec!["192.0.2.1:50000".to_owned()],
            ..Candidate::default()
        }
    }

    #[test]
    fn a_candidate_within_the_contract_passes() {
        join(&JoinRequest { candidate: Some(me()) }).unwrap();
        let hint = Hint { node_id: vec![1; 32], addresses: vec![], reachable: true };
        greet(&GreetRequest { candidate: Some(me()), peers: vec![hint; 64] }).unwrap();
    }

    #[test]
    fn everything_beyond_the_contract_is_refused() {
        let fields = |n: usize, len: usize| (0..n).map(move |i| (i.to_string(), "x".repeat(len)));
        let wrong = [
            Candidate { name: "Not A Name".to_owned(), ..me() },
            Candidate { role: 0, ..me() },
            Candidate { role: 3, ..me() },
            Candidate { addresses: vec!["192.0.2.1:1".to_owned(); 17], ..me() },
            Candidate { addresses: vec!["host:1".to_owned()], ..me() },
            Candidate { version: "x".repeat(65), ..me() },
            Candidate { waiting_for: "x".repeat(1025), ..me() },
            Candidate { cluster_id: vec![0; 31], ..me() },
            Candidate { birth_fields: fields(33, 1).collect(), ..me() },
            Candidate { birth_fields: fields(1, 1025).collect(), ..me() },
            Candidate { birth_fields: [("x".repeat(129), String::new())].into(), ..me() },
        ];
        for me in wrong {
            assert!(join(&JoinRequest { candidate: Some(me.clone()) }).is_err(), "{me:?}");
        }
        assert!(join(&JoinRequest { candidate: None }).is_err());
        let greeting = |hint: Hint, n| GreetRequest { candidate: Some(me()), peers: vec![hint; n] };
        assert!(greet(&greeting(Hint::default(), 65)).is_err());
        let hint = Hint { node_id: vec![0; 31], ..Hint::default() };
        assert!(greet(&greeting(hint, 1)).is_err());
    }
}
