//! The token of this node. A new machine needs it, a member does not: its key is in the registry.

use muster_pki::token::{Token, TokenId};
use muster_types::error::chain;
use tracing::warn;

use crate::membership::Membership;
use crate::state_dir::StateDir;

/// Token that this node proves to others, and the id under which it announces itself.
#[derive(Debug, Clone)]
pub struct NodeToken {
    /// On a member without a usable token: one that is valid nowhere.
    pub token: Token,
    /// Id of the token of the configuration, also if the configuration does not have it any more.
    pub id: TokenId,
    /// Problems that make the token of the configuration unusable.
    pub(super) problems: Option<String>,
}

impl NodeToken {
    /// Uses the token of the configuration, and notes its id for a later start without it.
    pub(super) fn usable(token: Token, membership: Option<&mut Membership>) -> Self {
        let id = token.id().clone();
        if let Some(membership) = membership {
            membership.token_id = Some(id.clone());
        }
        Self { token, id, problems: None }
    }

    /// Starts a member without its token.
    pub(super) fn unusable(membership: &Membership, problems: String) -> Self {
        let token = Token::generate();
        let id = membership.token_id.clone().unwrap_or_else(|| token.id().clone());
        Self { token, id, problems: Some(problems) }
    }

    /// Stores the id with the membership, if it differs.
    pub(super) fn store_id(membership: &Membership, state: &StateDir) {
        let path = state.membership();
        let is_stored = Membership::load(&path).is_ok_and(|stored| {
            stored.is_some_and(|stored| stored.token_id == membership.token_id)
        });
        if !is_stored && let Err(error) = membership.save(&path) {
            // The next change of the membership stores it.
            warn!(error = chain(&error), "cannot store the token's id");
        }
    }
}
