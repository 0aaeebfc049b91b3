//! The state as messages: the view for members ([`cluster_view`]) and replies for operators. They hold no
//! secret: of a token only the public id, of an authority only the certificate.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_messages::hello::refusal::Reason as WireReason;
use muster_messages::hello::{NodeRole, Peer, Refusal as WireRefusal};
use muster_messages::node::ClusterView;
use muster_messages::operator as wire;
use muster_messages::operator::member::{RaftRole, State};
use muster_pki::authority::AuthorityKind;
use muster_pki::inspect;
use muster_pki::token::TokenId;
use muster_types::time::whole_millis;
use muster_types::{NodeId, UnixMillis};

use super::etcd::EtcdMemberPhase;
use super::{AuditEntry, ClusterState, Member, Refusal, RefusalKind, Token, TokenStatus, limits};

/// The view of the cluster for every member, workers included.
pub fn cluster_view(state: &ClusterState) -> ClusterView {
    let birth = state.birth();
    let valid = |token: &Token| token.status(state.now()) == TokenStatus::Valid;
    ClusterView {
        index: state.index().0,
        cluster_id: birth.map(|b| b.cluster_id.to_vec()).unwrap_or_default(),
        cluster_name: birth.map(|b| b.cluster_name.clone()).unwrap_or_default(),
        members: peers(state),
        machine_authorities: state.machine_authorities(),
        config_version: state.config_version().0,
        removed: removed(state),
        token_ids: state
            .tokens()
            .filter(|(_, token)| valid(token))
            .map(|(id, _)| id.to_string())
            .collect(),
    }
}

/// Every member with its addresses.
pub fn peers(state: &ClusterState) -> Vec<Peer> {
    let peer = |member: &Member| Peer {
        public_key: member.public_key.to_vec(),
        name: member.name.to_string(),
        role: NodeRole::from(member.role).into(),
        addresses: member.addresses.iter().map(ToString::to_string).collect(),
    };
    state.members().map(peer).collect()
}

/// The most recently removed ids, the latest first.
fn removed(state: &ClusterState) -> Vec<Vec<u8>> {
    let mut removed: Vec<_> = state.removed().map(|(id, t)| (t.removed_index, id)).collect();
    removed.sort_unstable_by(|a, b| b.cmp(a));
    removed.into_iter().take(limits::MAX_VIEW_REMOVED).map(|(_, id)| id.to_vec()).collect()
}

/// A refusal as sent to a joining node.
pub fn refusal(refusal: &Refusal) -> WireRefusal {
    let reason = match refusal.kind {
        RefusalKind::NotFounded | RefusalKind::NotNow | RefusalKind::Full => WireReason::NotNow,
        RefusalKind::NameTaken => WireReason::NameTaken,
        RefusalKind::Removed => WireReason::Removed,
        RefusalKind::Token | RefusalKind::NoSuchToken => WireReason::Token,
        RefusalKind::NotAMember => WireReason::NotAMember,
        RefusalKind::AlreadyFounded
        | RefusalKind::Conflict
        | RefusalKind::Invalid
        | RefusalKind::LastControlPlane
        | RefusalKind::QuorumAtRisk
        | RefusalKind::NotAllowed
        | RefusalKind::Stale => WireReason::Invalid,
    };
    WireRefusal { reason: reason.into(), message: refusal.message.clone() }
}

/// A node's knowledge of the others that is not in the replicated state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveStatus {
    /// The node that replies.
    pub me: NodeId,
    pub leader: Option<NodeId>,
    /// The current voters of the Raft group, as opposed to the desired ones.
    pub voters: BTreeSet<NodeId>,
    /// Time without a leader; `None` unless no majority could confirm the reply.
    pub stale_for: Option<Duration>,
    pub liveness: BTreeMap<NodeId, PeerLiveness>,
}

/// The state of one node according to gossip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerLiveness {
    pub state: State,
    /// The time since the last message from it; `None` if there was none.
    pub silent_for: Option<Duration>,
}

/// The reply to `musterctl members`, sorted by name.
pub fn members(state: &ClusterState, live: &LiveStatus) -> wire::MembersReply {
    let mut members: Vec<_> = state.members().map(|m| member(state, live, m)).collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let leader = live.leader.and_then(|id| state.member(&id));
    wire::MembersReply {
        members,
        leader: leader.map(|m| m.name.to_string()).unwrap_or_default(),
        stale: live.stale_for.is_some(),
        stale_for_ms: live.stale_for.map(whole_millis).unwrap_or_default(),
        cluster_name: state.birth().map(|b| b.cluster_name.clone()).unwrap_or_default(),
        cluster_id: state.birth().map(|b| b.cluster_id.to_string()).unwrap_or_default(),
    }
}

fn member(state: &ClusterState, live: &LiveStatus, member: &Member) -> wire::Member {
    let liveness = if member.id == live.me {
        PeerLiveness { state: State::Alive, silent_for: Some(Duration::ZERO) }
    } else {
        let unknown = PeerLiveness { state: State::Unknown, silent_for: None };
        live.liveness.get(&member.id).copied().unwrap_or(unknown)
    };
    let raft_voter = live.voters.contains(&member.id);
    let raft_role = if !member.is_control_plane() {
        RaftRole::Unspecified
    } else if live.leader == Some(member.id) {
        RaftRole::Leader
    } else if raft_voter {
        RaftRole::Follower
    } else {
        RaftRole::Learner
    };
    let plan = state.etcd().node(&member.id);
    let etcd = plan
        .map_or(wire::member::EtcdMemberPhase::Unspecified, |plan| etcd_member_phase(plan.phase));
    wire::Member {
        name: member.name.to_string(),
        id: member.id.to_string(),
        role: NodeRole::from(member.role).into(),
        address: member.addresses.first().map(ToString::to_string).unwrap_or_default(),
        state: liveness.state.into(),
        raft_role: raft_role.into(),
        raft_voter,
        etcd: etcd.into(),
        version: member.version.clone(),
        config_version: member.config_version.0,
        last_seen_ms: liveness.silent_for.map(whole_millis),
    }
}

const fn etcd_member_phase(phase: EtcdMemberPhase) -> wire::member::EtcdMemberPhase {
    use wire::member::EtcdMemberPhase as Wire;
    match phase {
        EtcdMemberPhase::Founding | EtcdMemberPhase::Waiting => Wire::Waiting,
        EtcdMemberPhase::Learner { .. } => Wire::Learner,
        EtcdMemberPhase::Voter { .. } => Wire::Voter,
        EtcdMemberPhase::Lost { .. } => Wire::Lost,
    }
}

const fn token_state(status: TokenStatus) -> wire::token::State {
    match status {
        TokenStatus::Valid => wire::token::State::Valid,
        TokenStatus::Expired => wire::token::State::Expired,
        TokenStatus::UsedUp => wire::token::State::UsedUp,
        TokenStatus::Revoked => wire::token::State::Revoked,
    }
}

/// The value of an authority in a message.
pub const fn authority_kind(kind: AuthorityKind) -> wire::AuthorityKind {
    match kind {
        AuthorityKind::Machine => wire::AuthorityKind::Machine,
        AuthorityKind::Etcd => wire::AuthorityKind::Etcd,
        AuthorityKind::Kubernetes => wire::AuthorityKind::Kubernetes,
        AuthorityKind::FrontProxy => wire::AuthorityKind::FrontProxy,
    }
}

/// The reply to `musterctl token list`, the oldest token first.
pub fn tokens(state: &ClusterState, now: UnixMillis) -> wire::ListTokensReply {
    let mut tokens: Vec<_> = state.tokens().collect();
    tokens.sort_by_key(|(id, token)| (token.created_index, *id));
    let tokens = tokens.into_iter().map(|(id, t)| token(id, t, now)).collect();
    wire::ListTokensReply { tokens }
}

/// One token with its status at a time.
pub fn token(id: &TokenId, token: &Token, now: UnixMillis) -> wire::Token {
    let grant = &token.grant;
    wire::Token {
        id: id.to_string(),
        roles: grant.roles.iter().map(|role| NodeRole::from(*role).into()).collect(),
        expires_ms: token.expires_at.map_or(0, UnixMillis::as_millis),
        uses_allowed: grant.uses_allowed.unwrap_or(0),
        uses: token.uses,
        node_name: grant.node_name.as_ref().map(ToString::to_string).unwrap_or_default(),
        description: grant.description.clone(),
        founding: token.founding,
        state: token_state(token.status(now)).into(),
        created_ms: token.created_at.as_millis(),
        created_by: token.created_by.clone(),
    }
}

/// The newest `limit` entries of the audit log, oldest first; a `limit` of 0 means all.
pub fn audit(state: &ClusterState, limit: u32) -> wire::ListAuditReply {
    let kept = state.audit().len();
    let limit = if limit == 0 { kept } else { usize::try_from(limit).unwrap_or(kept) };
    let entry = |entry: &AuditEntry| wire::AuditEntry {
        index: entry.index.0,
        time_ms: entry.time.as_millis(),
        actor: entry.actor.clone(),
        action: entry.action.clone(),
        subject: entry.subject.clone(),
        outcome: entry.outcome.clone(),
    };
    let entries = state.audit().skip(kept.saturating_sub(limit)).map(entry).collect();
    wire::ListAuditReply { entries }
}

/// The authorities as `musterctl pki show` lists them, and the fingerprint of the service-account
/// key; empty until they are installed. The caller queries the nodes for their leaf certificates.
pub fn authorities(state: &ClusterState) -> wire::ShowPkiReply {
    let Some(held) = state.authorities() else { return wire::ShowPkiReply::default() };
    let authorities = held.all().into_iter().filter_map(|authority| {
        // The certificate was parsed when the authority was created or read.
        let described = inspect::describe(authority.certificate()).ok()?;
        Some(wire::Authority {
            kind: authority_kind(authority.kind()).into(),
            subject: described.subject,
            not_before_ms: UnixMillis::from(described.not_before).as_millis(),
            not_after_ms: UnixMillis::from(described.not_after).as_millis(),
            fingerprint: described.fingerprint,
            certificate_pem: authority.certificate_pem(),
        })
    });
    wire::ShowPkiReply {
        authorities: authorities.collect(),
        nodes: Vec::new(),
        service_account_key: held.service_account.fingerprint(),
    }
}

#[cfg(test)]
mod tests {
    use muster_types::etcd::EtcdMemberId;

    use super::*;

    #[test]
    fn every_status_of_a_token_has_a_state_with_its_word() {
        use TokenStatus::{Expired, Revoked, UsedUp, Valid};
        let words = [Valid, Expired, UsedUp, Revoked].map(|status| token_state(status).word());
        assert_eq!(words, ["valid", "expired", "used-up", "revoked"]);
    }

    #[test]
    fn every_authority_has_a_value_with_its_word() {
        use AuthorityKind::{Etcd, FrontProxy, Kubernetes, Machine};
        for kind in [Machine, Etcd, Kubernetes, FrontProxy] {
            assert_eq!(authority_kind(kind).word(), kind.as_str());
        }
    }

    #[test]
    fn every_phase_of_an_etcd_member_has_a_value_with_its_word() {
        let member_id = EtcdMemberId(1);
        for phase in [
            EtcdMemberPhase::Founding,
            EtcdMemberPhase::Waiting,
            EtcdMemberPhase::Learner { member_id },
            EtcdMemberPhase::Voter { member_id },
            EtcdMemberPhase::Lost { member_id: None },
        ] {
            assert_eq!(etcd_member_phase(phase).word(), phase.as_str());
        }
    }
}
