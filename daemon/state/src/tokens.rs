//! Join tokens, kept as verifiers, never as secrets.

use muster_messages::OperatorMethod;
use std::collections::BTreeMap;
use std::sync::Arc;

use muster_types::{DurationMillis, LogIndex, Role, UnixMillis};
use serde::{Deserialize, Serialize};

use super::command::{Actor, Admit, CreateToken, Grant, RevokeToken};
use super::{ApplyContext, ClusterState, Outcome, Refusal, RefusalKind, limits};
use muster_pki::token::{TokenId, Verifier};

/// A token as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub verifier: Verifier,
    pub grant: Grant,
    /// `None` if it never expires.
    #[serde(rename = "expires_ms")]
    pub expires_at: Option<UnixMillis>,
    /// Nodes admitted with it.
    pub uses: u32,
    /// True for the token that the founders agreed on the birth with.
    pub founding: bool,
    pub created_index: LogIndex,
    #[serde(rename = "created_ms")]
    pub created_at: UnixMillis,
    /// The actor that created it, as the audit log names it.
    pub created_by: String,
    /// `None` unless it was revoked.
    #[serde(rename = "revoked_ms", default)]
    pub revoked_at: Option<UnixMillis>,
}

/// Validity of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenStatus {
    Valid,
    Expired,
    UsedUp,
    Revoked,
}

impl Token {
    /// The status at a time. Revoked takes precedence over expired, and expired over used up.
    pub fn status(&self, now: UnixMillis) -> TokenStatus {
        if self.revoked_at.is_some() {
            TokenStatus::Revoked
        } else if self.expires_at.is_some_and(|expires| expires <= now) {
            TokenStatus::Expired
        } else if self.grant.uses_allowed.is_some_and(|allowed| self.uses >= allowed) {
            TokenStatus::UsedUp
        } else {
            TokenStatus::Valid
        }
    }
}

/// Every token by its public id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Tokens(BTreeMap<TokenId, Arc<Token>>);

impl Tokens {
    pub(super) fn install_founding(&mut self, at: ApplyContext, id: TokenId, verifier: Verifier) {
        let grant = Grant {
            roles: [Role::ControlPlane, Role::Worker].into(),
            ttl: None,
            uses_allowed: None,
            node_name: None,
            description: "founding token".to_owned(),
        };
        let token = Token {
            verifier,
            grant,
            expires_at: None,
            uses: 0,
            founding: true,
            created_index: at.index,
            created_at: at.now,
            created_by: "birth".to_owned(),
            revoked_at: None,
        };
        self.0.insert(id, Arc::new(token));
    }

    pub(super) fn count_use(&mut self, id: &TokenId) {
        if let Some(token) = self.0.get_mut(id) {
            let token = Arc::make_mut(token);
            token.uses = token.uses.saturating_add(1);
        }
    }

    /// Evicts the oldest token that is no longer valid if the limit is reached. Returns whether
    /// there is space for another.
    fn evict_if_full(&mut self, now: UnixMillis) -> bool {
        if self.0.len() < limits::MAX_TOKENS {
            return true;
        }
        let invalid = self.0.iter().filter(|(_, t)| t.status(now) != TokenStatus::Valid);
        let Some(oldest) = invalid.min_by_key(|(_, t)| t.created_index).map(|(id, _)| id.clone())
        else {
            return false;
        };
        self.0.remove(&oldest).is_some()
    }
}

impl ClusterState {
    /// Every token, by id.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = (&TokenId, &Token)> {
        self.tokens.0.iter().map(|(id, token)| (id, token.as_ref()))
    }

    /// The token with this id.
    pub fn token(&self, id: &TokenId) -> Option<&Token> {
        self.tokens.0.get(id).map(Arc::as_ref)
    }

    pub(super) fn check_token(&self, admit: &Admit, now: UnixMillis) -> Result<(), Refusal> {
        let id = &admit.token;
        let refuse = |why: String| Err(Refusal::new(RefusalKind::Token, why));
        let again = "make another with `musterctl token create`";
        let Some(token) = self.tokens.0.get(id) else {
            return refuse(format!("the cluster has no token {id}; {again}"));
        };
        match token.status(now) {
            TokenStatus::Revoked => return refuse(format!("token {id} was revoked; {again}")),
            TokenStatus::Expired => return refuse(format!("token {id} has expired; {again}")),
            TokenStatus::UsedUp => {
                return refuse(format!("token {id} has been used {} times; {again}", token.uses));
            }
            TokenStatus::Valid => {}
        }
        if !token.grant.roles.contains(&admit.role) {
            return refuse(format!(
                "token {id} does not admit a {role} node, and {name} is one by its machine.type and the \
                 patches that match its name; rename the machine, or {again}",
                role = admit.role,
                name = admit.name,
            ));
        }
        match &token.grant.node_name {
            Some(bound) if *bound != admit.name => refuse(format!(
                "token {id} admits only a node named {bound}, not {}; use that name or {again}",
                admit.name
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn create_token(
        &mut self,
        at: ApplyContext,
        create: &CreateToken,
    ) -> Result<Outcome, Refusal> {
        self.authorize_actor(&create.by, OperatorMethod::CreateToken)?;
        check_grant(&create.grant)?;
        if let Some(held) = self.tokens.0.get(&create.token) {
            if held.verifier == create.verifier && held.grant == create.grant {
                return Ok(Outcome::Unchanged);
            }
            return Err(Refusal::new(
                RefusalKind::Conflict,
                format!("there is another token {} already; make a new one", create.token),
            ));
        }
        if !self.tokens.evict_if_full(at.now) {
            return Err(Refusal::new(
                RefusalKind::Full,
                format!(
                    "the cluster holds {} valid tokens, the maximum; revoke some with \
                     `musterctl token revoke`",
                    limits::MAX_TOKENS
                ),
            ));
        }
        let ttl = create.grant.ttl;
        let expires_at = ttl.map(|ttl| at.now.saturating_add(ttl.as_duration()));
        let token = Token {
            verifier: create.verifier.clone(),
            grant: create.grant.clone(),
            expires_at,
            uses: 0,
            founding: false,
            created_index: at.index,
            created_at: at.now,
            created_by: self.actor_name(&create.by),
            revoked_at: None,
        };
        self.tokens.0.insert(create.token.clone(), Arc::new(token));
        Ok(Outcome::Done)
    }

    pub(super) fn revoke_token(
        &mut self,
        at: ApplyContext,
        revoke: &RevokeToken,
    ) -> Result<Outcome, Refusal> {
        self.authorize_actor(&revoke.by, OperatorMethod::RevokeToken)?;
        let Some(token) = self.tokens.0.get_mut(&revoke.token) else {
            return Err(Refusal::new(
                RefusalKind::NoSuchToken,
                format!("there is no token {}; see `musterctl token list`", revoke.token),
            ));
        };
        if token.revoked_at.is_some() {
            return Ok(Outcome::Unchanged);
        }
        Arc::make_mut(token).revoked_at = Some(at.now);
        Ok(Outcome::Done)
    }

    /// The name of an actor in the audit log.
    pub fn actor_name(&self, actor: &Actor) -> String {
        match actor {
            Actor::Operator(key) => {
                self.operators.get(key).map_or_else(|| key.to_string(), |o| o.name.clone())
            }
            Actor::Node(id) => {
                let member = self.members.get(id).map(|member| &member.name);
                let name = member.or_else(|| self.members.tombstone(id).map(|t| &t.name));
                name.map_or_else(|| format!("node {}", id.short()), |name| format!("node {name}"))
            }
            Actor::Cluster => "cluster".to_owned(),
        }
    }
}

fn is_invalid_ttl(ttl: DurationMillis) -> bool {
    ttl.as_duration().is_zero() || ttl.as_duration() > limits::MAX_TOKEN_TTL
}

fn check_grant(grant: &Grant) -> Result<(), Refusal> {
    let problem = if grant.roles.is_empty() {
        "a token admits at least one role: control-plane, worker".to_owned()
    } else if grant.ttl.is_some_and(is_invalid_ttl) {
        "a token's ttl is 1 millisecond to 10 years; omit it for a token that never expires"
            .to_owned()
    } else if grant.uses_allowed.is_some_and(|uses| uses == 0 || uses > limits::MAX_TOKEN_USES) {
        format!("a token has 1 to {} uses; omit the number for no limit", limits::MAX_TOKEN_USES)
    } else if grant.description.len() > limits::MAX_DESCRIPTION
        || grant.description.chars().any(char::is_control)
    {
        format!("a token's description is one line of at most {} bytes", limits::MAX_DESCRIPTION)
    } else {
        return Ok(());
    };
    Err(Refusal::new(RefusalKind::Invalid, problem))
}
