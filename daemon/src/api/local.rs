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
use crate::readiness::{EtcdFacts, Facts, waiting_for};

/// Status of this node's etcd, as its controller publishes it.
#[derive(Debug, Clone, Default)]
pub struct EtcdView {
    /// Status of the unit. `None` before its controller has run.
    pub status: Option<etcd::Status>,
    /// Reason why the unit does not run the plan's assignment.
    pub problem: Option<String>,
    /// Certificates that etcd presents, by name.
    pub leaves: Vec<(&'static str, CertificateDer<'static>)>,
}

/// Status channels that the node's tasks write.
#[derive(Debug)]
pub struct Sources {
    /// Current credentials and directory.
    pub trust: watch::Receiver<Arc<Trust>>,
    /// The condition that formation waits for. `None` once the node belongs to a cluster.
    pub forming: watch::Receiver<Option<String>>,
    /// True once this node was removed from its cluster.
    pub removed: watch::Receiver<bool>,
    /// On a worker: true while a control-plane node answers.
    pub in_touch: watch::Receiver<bool>,
    /// Handle to the Raft group. `None` on a worker, and before Raft has started.
    pub group: watch::Receiver<Option<Group>>,
    /// Status of this node's etcd.
    pub etcd: watch::Receiver<EtcdView>,
}

/// Provides this node's status.
#[derive(Debug)]
pub struct Local {
    /// This node's name.
    pub name: NodeName,
    /// This node's role.
    pub role: Role,
    sources: Sources,
}

/// Stream of encoded replies to one call.
type Answers = Pin<Box<dyn Stream<Item = Result<Vec<u8>, Status>> + Send>>;

impl Local {
    pub fn new(name: NodeName, role: Role, sources: Sources) -> Self {
        Self { name, role, sources }
    }

    /// Answers an operator's call about this node. The caller has checked the operator's role.
    pub fn call(&self, method: &str, request: &[u8]) -> Result<Answers, Status> {
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
        waiting_for(&self.facts())
    }

    fn facts(&self) -> Facts {
        let Sources { trust, forming, removed, in_touch, group, etcd } = &self.sources;
        let mut facts = Facts {
            role: self.role,
            removed: *removed.borrow(),
            forming: forming.borrow().clone(),
            has_certificate: trust.borrow().credentials.is_some(),
            stuck_for: None,
            in_touch: *in_touch.borrow(),
            votes: true,
            founded: true,
            etcd: None,
        };
        if self.role == Role::ControlPlane {
            let group = group.borrow().clone();
            facts.in_touch = group.as_ref().is_some_and(Group::has_live_leader);
            if let Some(group) = group {
                facts.stuck_for = group.stuck_for();
                let state = group.state();
                facts.founded = state.birth().is_some() && state.authorities().is_some();
                facts.votes = group.is_voter();
                // Borrowed once: a second borrow during the first deadlocks behind a writer.
                let EtcdView { status, problem, .. } = etcd.borrow().clone();
                facts.etcd = status.map(|status| EtcdFacts {
                    assignment: state.etcd().assignment(&group.me()),
                    status,
                    problem,
                });
            }
        }
        facts
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
        let Some(status) = self.sources.etcd.borrow().status.clone() else { return Vec::new() };
        let state = match status.phase {
            etcd::Phase::Stopped => "stopped",
            etcd::Phase::Starting => "starting",
            etcd::Phase::Running => "running",
            etcd::Phase::BackingOff => "backing-off",
            etcd::Phase::Stopping => "stopping",
            etcd::Phase::Lost => "lost",
            etcd::Phase::Refused => "refused",
        };
        let last_exit = status.last_exit.map(|exit| match &status.last_words {
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
        let trust = self.sources.trust.borrow().clone();
        let node = trust.credentials.iter().filter_map(|credentials| {
            Some(("node", AuthorityKind::Machine, credentials.chain().first()?.clone()))
        });
        let etcd = self.sources.etcd.borrow().leaves.clone();
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
