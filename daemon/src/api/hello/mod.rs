//! The service behind `muster-hello/1`. Before this node belongs to a cluster, formation answers;
//! afterwards, the registry does. Tokens are checked against the group's state, and the group
//! admits nodes.

mod rejections;

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_messages::hello::refusal::Reason;
use muster_messages::hello::{
    Admitted, AnchorReply, BirthMessage, Candidate, Credentials, GreetReply, GreetRequest,
    JoinReply, JoinRequest, NodeRole, Redirect, Refusal, RenewReply, candidate, join_reply,
    renew_reply,
};
use muster_pki::token::{Token, TokenId, Verifier};
use muster_transport::endpoint::{Caller, Trust};
use muster_transport::hello::{AuthenticatedPeer, HelloHandler, RejectReason, Rejection};
use muster_types::address::{address_strings, parse_addresses};
use muster_types::{ClusterId, NodeName, Role, VERSION};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use rejections::should_record;
pub use rejections::{audit, rejection_queue};

use super::node_status::NodeStatusProvider;
use crate::certificate;
use crate::clock;
use crate::convert;
use crate::raft::Group;
use crate::status::{self, StatusReader};
use muster_state::command::Admit;
use muster_state::{ClusterState, Command, Member, TokenStatus, view};

/// The hello service of one node.
#[derive(Debug)]
pub struct HelloService {
    /// Status provider of this node.
    pub node_status: Arc<NodeStatusProvider>,
    /// The token of this node's own configuration.
    pub token: Token,
    /// Answers until this node is a member, and late messages about the birth afterwards.
    pub formation: Option<muster_formation::Formation>,
    /// Current credentials and directory.
    pub trust: watch::Receiver<Arc<Trust>>,
    /// This node's birth fields, sent so that a peer can see differences.
    pub birth_fields: BTreeMap<String, String>,
    /// Queue of rejected peers for the audit log.
    pub rejections: mpsc::Sender<Rejection>,
}

/// Stage of this node, as far as it decides how hello calls are answered.
enum HelloStage {
    /// Not yet a member.
    Forming,
    /// A control-plane member with a founded state.
    ControlPlane(Box<Group>, Arc<ClusterState>),
    /// A member that knows no tokens: a worker, or a founder before the founding is committed.
    Other,
    /// Removed from its cluster.
    Removed,
}

impl HelloService {
    fn stage(&self) -> HelloStage {
        let (removed, group, cluster) = self
            .status()
            .get(|node| (node.stage == status::Stage::Removed, node.group.clone(), node.cluster));
        if removed {
            return HelloStage::Removed;
        }
        if let Some(group) = group {
            let state = group.state();
            let founded = state.birth().is_some() && state.authorities().is_some();
            return if founded {
                HelloStage::ControlPlane(Box::new(group), state)
            } else {
                HelloStage::Other
            };
        }
        if cluster.is_none() { HelloStage::Forming } else { HelloStage::Other }
    }

    fn status(&self) -> &StatusReader {
        &self.node_status.status
    }

    /// Returns true if this member has not received the cluster's authorities yet.
    fn is_at_genesis(&self) -> bool {
        self.trust.borrow().credentials.is_none()
    }

    /// Describes this node once it is a member.
    fn member_candidate(&self) -> Candidate {
        let cluster = self.status().get(|node| node.cluster);
        let cluster_id = cluster.map(ClusterId::to_vec).unwrap_or_default();
        Candidate {
            name: self.node_status.name.to_string(),
            role: NodeRole::from(self.node_status.role).into(),
            addresses: address_strings(&self.status().addresses().borrow()),
            version: VERSION.to_owned(),
            state: candidate::State::Member.into(),
            cluster_id,
            birth_fields: self.birth_fields.clone().into_iter().collect(),
            waiting_for: self.node_status.waiting_for().unwrap_or_default(),
            ..Default::default()
        }
    }

    fn own_candidate(&self) -> Candidate {
        match (self.stage(), &self.formation) {
            (HelloStage::Forming, Some(formation)) => Candidate {
                waiting_for: self.node_status.waiting_for().unwrap_or_default(),
                ..formation.candidate().borrow().clone()
            },
            _ => self.member_candidate(),
        }
    }

    async fn admit(
        &self,
        group: &Group,
        peer: &AuthenticatedPeer,
        me: Candidate,
    ) -> join_reply::Outcome {
        let refuse = |reason: Reason, message: String| {
            join_reply::Outcome::Refused(Refusal { reason: reason.into(), message })
        };
        let (Ok(name), Some(role)) = (me.name.parse::<NodeName>(), NodeRole::role_of(me.role))
        else {
            return refuse(Reason::Invalid, "invalid node name or role".to_owned());
        };
        let mut addresses = parse_addresses(&me.addresses);
        if addresses.is_empty() {
            addresses.push(peer.caller.remote);
        }
        let admit = Admit {
            public_key: peer.caller.public_key,
            name,
            role,
            addresses,
            version: me.version,
            token: peer.token.clone(),
            verified_by: group.me(),
        };
        let joining = peer.caller.node_id;
        // Checked first: refused joins must not fill the Raft log, however often they are retried.
        let now = clock::now_millis();
        let checked = match group.catch_up().await {
            Ok(state) if state.member(&joining).is_some() && group.voters().contains(&joining) => {
                return refuse(Reason::Invalid, lost_membership(&admit.name));
            }
            Ok(state) => state.check_admit(&admit, now).map_err(|r| (r, state)),
            Err(error) => return refuse(Reason::NotNow, error.to_string()),
        };
        if let Err((refusal, state)) = checked
            && !should_record(&state, &admit, &refusal, now)
        {
            return join_reply::Outcome::Refused(view::refusal(&refusal));
        }
        let outcome = match group.propose(Command::Admit(admit)).await {
            Ok(outcome) => outcome,
            Err(error) => return refuse(Reason::NotNow, error.to_string()),
        };
        if let Err(refusal) = outcome.into_result() {
            return join_reply::Outcome::Refused(view::refusal(&refusal));
        }
        match group.catch_up().await {
            Ok(state) => {
                match state.member(&peer.caller.node_id).and_then(|m| admission_reply(&state, m)) {
                    Some(admitted) => join_reply::Outcome::Admitted(admitted),
                    None => refuse(Reason::NotNow, "the certificate is not issued yet".to_owned()),
                }
            }
            Err(error) => refuse(Reason::NotNow, error.to_string()),
        }
    }

    fn redirect(&self) -> Redirect {
        Redirect { peers: convert::control_plane_hints(&self.trust.borrow()) }
    }
}

/// Message for a voter that asks to join again. A node votes only after its membership is on its
/// disk, and with that it rejoins by itself. A voter that asks to join has lost its disk state,
/// including its votes and acknowledged entries. Readmitted as the same voter, it could cause the
/// loss of an acknowledged write.
fn lost_membership(name: &NodeName) -> String {
    format!(
        "this node is the voter {name}, but its disk has no membership (an old disk image?); run \
         `musterctl node remove {name}`, wipe its state directory and let it join as a new node"
    )
}

/// Builds the reply that a member needs to use `muster-node/1`. `None` before the authorities are
/// installed.
fn admission_reply(state: &ClusterState, member: &Member) -> Option<Admitted> {
    let certificate = certificate::issue(state, member, clock::now())?;
    let birth = state.birth()?;
    let der = |list: Vec<muster_pki::CertificateDer<'static>>| -> Vec<Vec<u8>> {
        list.into_iter().map(|der| der.to_vec()).collect()
    };
    Some(Admitted {
        cluster_id: birth.cluster_id.to_vec(),
        cluster_name: birth.cluster_name.clone(),
        credentials: Some(Credentials {
            certificate_chain: der(certificate.chain),
            machine_authorities: der(certificate.authorities),
        }),
        peers: view::peers(state),
    })
}

#[tonic::async_trait]
impl HelloHandler for HelloService {
    async fn verifier(&self, token: &TokenId) -> Option<Verifier> {
        let own = || (token == self.token.id()).then(|| self.token.verifier());
        match self.stage() {
            HelloStage::Removed => None,
            HelloStage::Forming => own(),
            HelloStage::ControlPlane(_, state) => {
                let now = clock::cluster_now(&state);
                let known = state.token(token)?;
                (known.status(now) == TokenStatus::Valid).then(|| known.verifier.clone())
            }
            HelloStage::Other => match (self.node_status.role, self.status().cluster_view()) {
                // Only at genesis is the founding token the only one. A node that has a certificate
                // is starting or lagging behind, so it does not know which tokens were revoked.
                (Role::ControlPlane, _) => own().filter(|_| self.is_at_genesis()),
                (Role::Worker, None) => None,
                (Role::Worker, Some(cluster_view)) => {
                    own().filter(|_| cluster_view.token_ids.iter().any(|id| id == token.as_str()))
                }
            },
        }
    }

    async fn is_still_valid(&self, token: &TokenId) -> bool {
        match self.stage() {
            HelloStage::ControlPlane(_, state) => {
                let now = clock::cluster_now(&state);
                let status = state.token(token).map(|token| token.status(now));
                matches!(status, Some(TokenStatus::Valid | TokenStatus::UsedUp))
            }
            // A worker that has just joined does not know yet which tokens are valid.
            HelloStage::Other if self.status().cluster_view().is_none() => token == self.token.id(),
            HelloStage::Other | HelloStage::Forming | HelloStage::Removed => {
                self.verifier(token).await.is_some()
            }
        }
    }

    async fn greet(
        &self,
        peer: AuthenticatedPeer,
        request: GreetRequest,
    ) -> Result<GreetReply, Status> {
        if let (HelloStage::Forming, Some(formation)) = (self.stage(), &self.formation) {
            return formation
                .greet(peer.caller.public_key, peer.caller.remote, request)
                .await
                .map_err(|error| Status::failed_precondition(error.to_string()));
        }
        let peers = convert::control_plane_hints(&self.trust.borrow());
        Ok(GreetReply { candidate: Some(self.own_candidate()), peers })
    }

    async fn birth(
        &self,
        peer: AuthenticatedPeer,
        message: BirthMessage,
    ) -> Result<Vec<BirthMessage>, Status> {
        let Some(formation) = &self.formation else { return Ok(Vec::new()) };
        formation
            .birth(peer.caller.public_key, message)
            .await
            .map_err(|error| Status::failed_precondition(error.to_string()))
    }

    async fn join(
        &self,
        peer: AuthenticatedPeer,
        request: JoinRequest,
    ) -> Result<JoinReply, Status> {
        let me = request
            .candidate
            .ok_or_else(|| Status::invalid_argument("join request without a candidate"))?;
        let outcome = match self.stage() {
            HelloStage::ControlPlane(group, _) => self.admit(&group, &peer, me).await,
            HelloStage::Other | HelloStage::Forming | HelloStage::Removed => {
                join_reply::Outcome::Redirect(self.redirect())
            }
        };
        Ok(JoinReply { outcome: Some(outcome) })
    }

    async fn renew(&self, caller: Caller) -> Result<RenewReply, Status> {
        let refuse = |reason: Reason, message: &str| {
            renew_reply::Outcome::Refused(Refusal {
                reason: reason.into(),
                message: message.to_owned(),
            })
        };
        let outcome = match self.stage() {
            HelloStage::ControlPlane(_, state) => match state.member(&caller.node_id) {
                Some(member) => admission_reply(&state, member).map_or_else(
                    || refuse(Reason::NotNow, "the cluster has no machine authority yet"),
                    renew_reply::Outcome::Renewed,
                ),
                None if state.is_removed(&caller.node_id) => {
                    let Caller { remote, public_key, .. } = caller;
                    let reason = RejectReason::Removed;
                    self.on_rejection(Rejection { remote, public_key, token: None, reason });
                    refuse(Reason::Removed, "this node was removed from the cluster")
                }
                None => refuse(Reason::NotAMember, ""),
            },
            // Reveals nothing of the cluster to an unauthenticated peer, not even hints.
            HelloStage::Other | HelloStage::Forming | HelloStage::Removed => {
                refuse(Reason::NotNow, "")
            }
        };
        Ok(RenewReply { outcome: Some(outcome) })
    }

    async fn anchor(&self, _peer: AuthenticatedPeer) -> Result<AnchorReply, Status> {
        let node = Some(self.own_candidate());
        let (cluster_id, cluster_name) = match self.stage() {
            HelloStage::ControlPlane(_, state) => match state.birth() {
                Some(birth) => (birth.cluster_id.to_vec(), birth.cluster_name.clone()),
                None => return Ok(AnchorReply { node, ..Default::default() }),
            },
            HelloStage::Other => match self.status().cluster_view() {
                Some(cluster_view) => {
                    (cluster_view.cluster_id.clone(), cluster_view.cluster_name.clone())
                }
                None => return Ok(AnchorReply { node, ..Default::default() }),
            },
            HelloStage::Forming | HelloStage::Removed => {
                return Ok(AnchorReply { node, ..Default::default() });
            }
        };
        let trust = Arc::clone(&self.trust.borrow());
        let authorities = trust.credentials.iter().flat_map(|own| own.bundle().to_der()).collect();
        Ok(AnchorReply {
            node,
            cluster_id,
            cluster_name,
            machine_authorities: authorities,
            peers: convert::peers(&trust.directory),
        })
    }

    fn on_rejection(&self, rejection: Rejection) {
        // Dropped if the queue is full: no call waits for the audit log.
        self.rejections.try_send(rejection).ok();
    }
}
