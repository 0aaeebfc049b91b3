//! Operator calls about join tokens. The state checks the bounds of each command.

use muster_messages::hello::NodeRole;
use muster_messages::operator as wire;
use muster_pki::token::{TokenId, Verifier};
use muster_types::{DurationMillis, NodeName, PublicKey, UnixMillis};
use tonic::Status;

use super::OperatorContext;
use super::context::{CallContext, operator_actor};
use crate::clock::cluster_now;
use muster_state::command::{CreateToken, Grant, RevokeToken};
use muster_state::{Command, Token, TokenStatus, view};

impl OperatorContext {
    pub(super) async fn create_token(
        &self,
        caller: &CallContext,
        request: wire::CreateTokenRequest,
    ) -> Result<wire::CreateTokenReply, Status> {
        let create = parse_create_token(caller.key, request)?;
        let token = create.token.clone();
        self.propose(Command::CreateToken(create)).await?;
        let token = self.updated_token(&token, |_, _| true).await?;
        Ok(wire::CreateTokenReply { token: Some(token) })
    }

    pub(super) async fn revoke_token(
        &self,
        caller: &CallContext,
        request: wire::RevokeTokenRequest,
    ) -> Result<wire::RevokeTokenReply, Status> {
        let token = parse_revoke_token(&request)?;
        let revoke = RevokeToken { token: token.clone(), by: operator_actor(caller.key) };
        self.propose(Command::RevokeToken(revoke)).await?;
        let revoked = |token: &Token, now| token.status(now) == TokenStatus::Revoked;
        let token = self.updated_token(&token, revoked).await?;
        Ok(wire::RevokeTokenReply { token: Some(token) })
    }

    /// Returns a token that a command has just changed. If this node has already applied the
    /// change, as the leader always has, it needs no read index. `has_change` detects the change in its
    /// own state.
    async fn updated_token(
        &self,
        id: &TokenId,
        has_change: impl Fn(&Token, UnixMillis) -> bool,
    ) -> Result<wire::Token, Status> {
        let own = self.group.state();
        let is_applied = own.token(id).is_some_and(|token| has_change(token, cluster_now(&own)));
        let state = if is_applied { own } else { self.current().await? };
        let token = state.token(id).ok_or_else(|| Status::not_found(format!("no token {id}")))?;
        Ok(view::token(id, token, cluster_now(&state)))
    }

    pub(super) async fn list_tokens(
        &self,
        _: &CallContext,
        _: wire::ListTokensRequest,
    ) -> Result<wire::ListTokensReply, Status> {
        let state = self.current().await?;
        Ok(view::tokens(&state, cluster_now(&state)))
    }
}

/// Converts a request to the command that creates a token. The state checks its bounds.
pub(super) fn parse_create_token(
    caller: PublicKey,
    request: wire::CreateTokenRequest,
) -> Result<CreateToken, Status> {
    let invalid = |error: &dyn std::error::Error| {
        Status::invalid_argument(format!("token create: {}", muster_types::error::chain(error)))
    };
    let token: TokenId = request.id.parse().map_err(|e| invalid(&e))?;
    let verifier = Verifier::from_bytes(&request.verifier).map_err(|e| invalid(&e))?;
    let roles = request.roles.iter().map(|role| {
        NodeRole::role_of(*role).ok_or_else(|| {
            Status::invalid_argument(format!("token create: no node role has the number {role}"))
        })
    });
    let grant = Grant {
        roles: roles.collect::<Result<_, _>>()?,
        ttl: (request.ttl_ms != 0).then_some(DurationMillis::from_millis(request.ttl_ms)),
        uses_allowed: (request.uses_allowed != 0).then_some(request.uses_allowed),
        node_name: match request.node_name.as_str() {
            "" => None,
            name => Some(name.parse::<NodeName>().map_err(|e| invalid(&e))?),
        },
        description: request.description,
    };
    Ok(CreateToken { token, verifier, grant, by: operator_actor(caller) })
}

/// Returns the id of the token to revoke.
pub(super) fn parse_revoke_token(request: &wire::RevokeTokenRequest) -> Result<TokenId, Status> {
    // A whole token is rejected: its secret must not be part of a request.
    request.id.parse().map_err(|_| {
        Status::invalid_argument("token revoke: expected a token id, the part before the dot")
    })
}
