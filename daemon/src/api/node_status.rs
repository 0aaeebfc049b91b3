//! This node's status as a message: readiness, units, certificates. Operators read it through a
//! control-plane node; greetings include what the node waits for. Owns no status: see
//! [`crate::status`].

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, stream};
use muster_init::units::{UnitName, UnitPhase, UnitStatus};
use muster_messages::operator as wire;
use muster_pki::authority::AuthorityKind;
use muster_pki::inspect::describe;
use muster_pki::leaf::Leaf;
use muster_state::view::authority_kind;
use muster_transport::endpoint::Trust;
use muster_types::{NodeName, Role, UnixMillis, VERSION};
use prost::Message;
use tokio::sync::watch;
use tonic::Status;

use crate::clock;
use crate::status::readiness::{RaftReadiness, ReadinessInputs, waiting_for};
use crate::status::{NodeStatus, StatusReader, UnitLeaf};

/// Provides this node's status.
#[derive(Debug)]
pub struct NodeStatusProvider {
    /// This node's name.
    pub name: NodeName,
    /// This node's role.
    pub role: Role,
    /// Status that the node's tasks write.
    pub status: StatusReader,
    /// Current credentials and directory.
    pub trust: watch::Receiver<Arc<Trust>>,
}

/// Stream of encoded replies to one call.
type ReplyStream = Pin<Box<dyn Stream<Item = Result<Vec<u8>, Status>> + Send>>;

impl NodeStatusProvider {
    /// Answers an operator's call about this node. The caller has checked the operator's role.
    pub fn call(&self, method: &str, request: &[u8]) -> Result<ReplyStream, Status> {
        match method {
            "NodeStatus" => {
                wire::NodeStatusRequest::decode(request)
                    .map_err(|error| Status::invalid_argument(error.to_string()))?;
                let reply = self.reply().encode_to_vec();
                Ok(Box::pin(stream::iter([Ok(reply)])))
            }
            _ => Err(Status::unimplemented(format!("{method} is not a node-local call"))),
        }
    }

    /// Returns the one thing that this node waits for; `None` if it is ready.
    pub fn waiting_for(&self) -> Option<String> {
        waiting_for(&self.readiness_inputs())
    }

    fn readiness_inputs(&self) -> ReadinessInputs {
        let node = self.status.get(NodeStatus::clone);
        let raft = node.group.as_ref().map(RaftReadiness::of);
        let has_certificate = self.trust.borrow().credentials.is_some();
        ReadinessInputs { role: self.role, node, has_certificate, raft }
    }

    fn reply(&self) -> wire::NodeStatusReply {
        let inputs = self.readiness_inputs();
        let waiting_for = waiting_for(&inputs);
        let units = inputs.node.units;
        wire::NodeStatusReply {
            name: self.name.to_string(),
            ready: waiting_for.is_none(),
            waiting_for: waiting_for.unwrap_or_default(),
            unreachable: String::new(),
            version: VERSION.to_owned(),
            units: units.iter().map(|(name, unit)| unit_message(*name, &unit.status)).collect(),
            clock_ms: clock::now_millis().as_millis(),
            clock_offset_ms: 0,
            leaves: self.leaves(units.into_values().flat_map(|unit| unit.leaves)),
        }
    }

    fn leaves(&self, of_units: impl Iterator<Item = UnitLeaf>) -> Vec<wire::Leaf> {
        let credentials = self.trust.borrow().credentials.clone();
        let node = credentials.iter().filter_map(|credentials| {
            let certificate = credentials.chain().first()?.clone();
            Some(UnitLeaf { name: "node", authority: AuthorityKind::Machine, certificate })
        });
        node.chain(of_units).filter_map(leaf_message).collect()
    }
}

fn unit_message(name: UnitName, status: &UnitStatus) -> wire::Unit {
    let last_exit = status.last_exit.map(|exit| match &status.last_error {
        Some(words) => format!("{exit}: {words}"),
        None => exit.to_string(),
    });
    wire::Unit {
        name: name.to_string(),
        phase: unit_phase(status.phase).into(),
        pid: status.pid.unwrap_or_default(),
        restarts: u32::try_from(status.restarts).unwrap_or(u32::MAX),
        last_exit: last_exit.unwrap_or_default(),
    }
}

const fn unit_phase(phase: UnitPhase) -> wire::unit::Phase {
    match phase {
        UnitPhase::Stopped => wire::unit::Phase::Stopped,
        UnitPhase::Starting => wire::unit::Phase::Starting,
        UnitPhase::Running => wire::unit::Phase::Running,
        UnitPhase::BackingOff => wire::unit::Phase::BackingOff,
        UnitPhase::Stopping => wire::unit::Phase::Stopping,
        UnitPhase::Lost => wire::unit::Phase::Lost,
        UnitPhase::Refused => wire::unit::Phase::Refused,
    }
}

fn leaf_message(unit_leaf: UnitLeaf) -> Option<wire::Leaf> {
    let UnitLeaf { name, authority, certificate } = unit_leaf;
    let described = describe(&certificate).ok()?;
    let leaf = Leaf::from_chain(vec![certificate]).ok()?;
    let ms = |time| UnixMillis::from(time).as_millis();
    Some(wire::Leaf {
        name: name.to_owned(),
        authority: authority_kind(authority).into(),
        subject: described.subject,
        alternative_names: described.alternative_names,
        not_before_ms: ms(leaf.not_before),
        not_after_ms: ms(leaf.not_after),
        renew_at_ms: ms(leaf.renew_at()),
        fingerprint: described.fingerprint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::StatusWriter;

    #[test]
    fn a_registered_unit_is_listed_without_another_line() {
        let status = StatusWriter::new(None, Vec::new());
        let (_sender, trust) = watch::channel(Arc::default());
        let provider = NodeStatusProvider {
            name: "worker-1".parse().unwrap(),
            role: Role::Worker,
            status: status.reader(),
            trust,
        };
        assert_eq!(provider.reply().units, []);
        let _kubelet = status.register_unit(UnitName::new("kubelet"));
        let units = provider.reply().units;
        let listed: Vec<_> =
            units.iter().map(|unit| (unit.name.as_str(), unit.phase().word())).collect();
        assert_eq!(listed, [("kubelet", "stopped".to_owned())]);
    }

    #[test]
    fn every_phase_of_a_unit_has_a_value_with_its_word() {
        use UnitPhase::{BackingOff, Lost, Refused, Running, Starting, Stopped, Stopping};
        let phases = [Stopped, Starting, Running, BackingOff, Stopping, Lost, Refused];
        let words = phases.map(|phase| unit_phase(phase).word()).join(" ");
        assert_eq!(words, "stopped starting running backing-off stopping lost refused");
    }
}
