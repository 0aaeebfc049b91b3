//! This node's status: readiness, units, certificates. Operators read it through a control-plane
//! node; greetings include what the node waits for.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, stream};
use muster_init::units::etcd;
use muster_messages::operator as wire;
use muster_pki::inspect::describe;
use muster_pki::leaf::Leaf;
use muster_pki::{CertificateDer, authority::AuthorityKind};
use muster_transport::endpoint::Trust;
use muster_types::{NodeName, Role, VERSION};
use prost::Message;
use tokio::sync::watch;
use tonic::Status;

use crate::clock;
use crate::raft::Group;
use crate::readiness::{EtcdInputs, ReadinessInputs, waiting_for};

/// Status of this node's etcd, as its controller publishes it.
#[derive(Debug, Clone, Default)]
pub struct EtcdUnitStatus {
    /// Status of the unit. `None` before its controller has run.
    pub status: Option<etcd::EtcdStatus>,
    /// Reason why the unit does not run the plan's assignment.
    pub problem: Option<String>,
    /// Certificates that etcd presents, by name.
    pub leaves: Vec<(&'static str, CertificateDer<'static>)>,
}

/// Status channels that the node's tasks write.
#[derive(Debug)]
pub struct StatusChannels {
    /// Current credentials and directory.
    pub trust: watch::Receiver<Arc<Trust>>,
    /// The condition that formation waits for. `None` once the node belongs to a cluster.
    pub forming: watch::Receiver<Option<String>>,
    /// True once this node was removed from its cluster.
    pub removed: watch::Receiver<bool>,
    /// On a worker: true while a control-plane node answers.
    pub connected: watch::Receiver<bool>,
    /// Handle to the Raft group. `None` on a worker, and before Raft has started.
    pub group: watch::Receiver<Option<Group>>,
    /// Status of this node's etcd.
    pub etcd: watch::Receiver<EtcdUnitStatus>,
}

/// Provides this node's status.
#[derive(Debug)]
pub struct NodeStatusProvider {
    /// This node's name.
    pub name: NodeName,
    /// This node's role.
    pub role: Role,
    channels: StatusChannels,
}

/// Stream of encoded replies to one call.
type ReplyStream = Pin<Box<dyn Stream<Item = Result<Vec<u8>, Status>> + Send>>;

impl NodeStatusProvider {
    pub fn new(name: NodeName, role: Role, channels: StatusChannels) -> Self {
        Self { name, role, channels }
    }

    /// Answers an operator's call about this node. The caller has checked the operator's role.
    pub fn call(&self, method: &str, request: &[u8]) -> Result<ReplyStream, Status> {
        match method {
            "NodeStatus" => {
                wire::NodeStatusRequest::decode(request)
                    .map_err(|error| Status::invalid_argument(error.to_string()))?;
                let reply = self.status().encode_to_vec();
                Ok(Box::pin(stream::iter([Ok(reply)])))
            }
            _ => Err(Status::unimplemented(format!("{method} is not a node-local call"))),
        }
    }

    /// Returns the one thing that this node waits for; `None` if it is ready.
    pub fn waiting_for(&self) -> Option<String> {
        waiting_for(&self.inputs())
    }

    fn inputs(&self) -> ReadinessInputs {
        let StatusChannels { trust, forming, removed, connected, group, etcd } = &self.channels;
        let mut inputs = ReadinessInputs {
            role: self.role,
            removed: *removed.borrow(),
            forming: forming.borrow().clone(),
            has_certificate: trust.borrow().credentials.is_some(),
            stuck_for: None,
            connected: *connected.borrow(),
            votes: true,
            founded: true,
            etcd: None,
        };
        if self.role == Role::ControlPlane {
            let group = group.borrow().clone();
            inputs.connected = group.as_ref().is_some_and(Group::has_live_leader);
            if let Some(group) = group {
                inputs.stuck_for = group.stuck_for();
                let state = group.state();
                inputs.founded = state.birth().is_some() && state.authorities().is_some();
                inputs.votes = group.is_voter();
                // Borrowed once: a second borrow during the first deadlocks behind a writer.
                let EtcdUnitStatus { status, problem, .. } = etcd.borrow().clone();
                inputs.etcd = status.map(|status| EtcdInputs {
                    assignment: state.etcd().assignment(&group.me()),
                    status,
                    problem,
                });
            }
        }
        inputs
    }

    fn status(&self) -> wire::NodeStatusReply {
        let waiting_for = self.waiting_for();
        let clock_ms = i64::try_from(clock::now_ms()).unwrap_or(i64::MAX);
        wire::NodeStatusReply {
            name: self.name.to_string(),
            ready: waiting_for.is_none(),
            waiting_for: waiting_for.unwrap_or_default(),
            unreachable: String::new(),
            version: VERSION.to_owned(),
            units: self.units(),
            clock_ms,
            clock_offset_ms: 0,
            leaves: self.leaves(),
        }
    }

    fn units(&self) -> Vec<wire::Unit> {
        let Some(status) = self.channels.etcd.borrow().status.clone() else { return Vec::new() };
        let state = match status.phase {
            etcd::EtcdPhase::Stopped => "stopped",
            etcd::EtcdPhase::Starting => "starting",
            etcd::EtcdPhase::Running => "running",
            etcd::EtcdPhase::BackingOff => "backing-off",
            etcd::EtcdPhase::Stopping => "stopping",
            etcd::EtcdPhase::Lost => "lost",
            etcd::EtcdPhase::Refused => "refused",
        };
        let last_exit = status.last_exit.map(|exit| match &status.last_error {
            Some(words) => format!("{exit}: {words}"),
            None => exit.to_string(),
        });
        vec![wire::Unit {
            name: "etcd".to_owned(),
            state: state.to_owned(),
            pid: status.pid.unwrap_or_default(),
            restarts: u32::try_from(status.restarts).unwrap_or(u32::MAX),
            last_exit: last_exit.unwrap_or_default(),
        }]
    }

    fn leaves(&self) -> Vec<wire::Leaf> {
        let trust = self.channels.trust.borrow().clone();
        let node = trust.credentials.iter().filter_map(|credentials| {
            Some(("node", AuthorityKind::Machine, credentials.chain().first()?.clone()))
        });
        let etcd = self.channels.etcd.borrow().leaves.clone();
        let etcd = etcd.into_iter().map(|(name, leaf)| (name, AuthorityKind::Etcd, leaf));
        node.chain(etcd).filter_map(|(name, authority, der)| leaf(name, authority, der)).collect()
    }
}

fn leaf(name: &str, authority: AuthorityKind, der: CertificateDer<'static>) -> Option<wire::Leaf> {
    let described = describe(&der).ok()?;
    let leaf = Leaf::from_chain(vec![der]).ok()?;
    let ms = |time| i64::try_from(clock::millis(time)).unwrap_or(i64::MAX);
    Some(wire::Leaf {
        name: name.to_owned(),
        authority: authority.as_str().to_owned(),
        subject: described.subject,
        alternative_names: described.alternative_names,
        not_before_ms: ms(leaf.not_before),
        not_after_ms: ms(leaf.not_after),
        renew_at_ms: ms(leaf.renew_at()),
        fingerprint: described.fingerprint,
    })
}
