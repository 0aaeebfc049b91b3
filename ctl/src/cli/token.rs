//! `token`: manages the tokens that admit nodes.

use std::io;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use muster_messages::hello::NodeRole;
use muster_messages::operator::{self, CreateTokenRequest, ListTokensRequest, RevokeTokenRequest};
use muster_pki::token::{Token, TokenId, TokenIdError};
use muster_types::{NodeName, Role};
use serde::Serialize;

use super::failure::{CommandError, ExitCode, Failure};
use super::parse;
use crate::client::{Api, CallError, CallKind};
use crate::clock::{format_relative, now, rfc3339};
use crate::output::{Output, Render, non_empty, or_dash, table};

/// Create, list and revoke the tokens that admit nodes
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    Create(Create),
    /// List the tokens; secrets are not stored and never shown
    List,
    /// Revoke a token at once; members that joined with it stay
    Revoke {
        /// The part of the token before the dot
        #[arg(value_name = "ID", value_parser = id)]
        id: TokenId,
    },
}

/// Create a token on this machine and show it once; the cluster stores only a verifier
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    musterctl token create --role worker --uses 1 --node-name worker-7\n  \
    musterctl token create --role control-plane --ttl 2h\n  \
    T=$(musterctl token create --role worker)        exactly the token, for a script")]
pub(crate) struct Create {
    /// Role that the token admits: control-plane or worker; may be repeated
    #[arg(long = "role", value_name = "ROLE", required = true)]
    roles: Vec<Role>,
    /// Lifetime of the token
    #[arg(long, value_name = "DURATION", value_parser = parse::duration,
        allow_hyphen_values = true, default_value = "24h")]
    ttl: Duration,
    /// Number of nodes that may use it [default: any number]
    #[arg(long, value_name = "N", value_parser = uses, allow_negative_numbers = true)]
    uses: Option<u32>,
    /// Name of the only node that may use it
    #[arg(long, value_name = "NAME", value_parser = parse::node_name)]
    node_name: Option<NodeName>,
    /// Text shown in the list of tokens
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = parse::description)]
    description: String,
}

/// Parses a token id. Accepts a whole token too and drops its secret.
fn id(text: &str) -> Result<TokenId, String> {
    let id = text.split('.').next().unwrap_or(text);
    id.parse().map_err(|error: TokenIdError| format!("{error}; `musterctl token list` shows them"))
}

fn uses(text: &str) -> Result<u32, String> {
    parse::number(text, 1..=u32::MAX, 3)
        .map_err(|error| format!("{error}; without --uses any number of nodes may use the token"))
}

impl TokenCommand {
    pub(crate) async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(api, out).await,
            Self::List => {
                let message = ListTokensRequest {};
                let reply = api
                    .call(
                        CallKind::Idempotent,
                        "list the tokens",
                        message,
                        async |client, request| client.list_tokens(request).await,
                    )
                    .await?;
                let tokens = reply.tokens.into_iter().map(TokenView::from).collect();
                Ok(out.show(&TokensView { now: now(), tokens })?)
            }
            Self::Revoke { id } => {
                let message = RevokeTokenRequest { id: id.to_string() };
                let reply = api
                    .call(
                        CallKind::Idempotent,
                        "revoke the token",
                        message,
                        async |client, request| client.revoke_token(request).await,
                    )
                    .await?;
                let revoked = token_of(api, reply.token)?;
                Ok(out.show(&Revoked { revoked })?)
            }
        }
    }
}

impl Create {
    async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        let token = Token::generate();
        let message = CreateTokenRequest {
            id: token.id().to_string(),
            verifier: token.verifier().to_bytes().to_vec(),
            roles: self.roles.iter().map(|role| NodeRole::from(*role).into()).collect(),
            ttl_ms: u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX),
            uses_allowed: self.uses.unwrap_or(0),
            node_name: self.node_name.map(String::from).unwrap_or_default(),
            description: self.description,
        };
        let reply = api
            .call(CallKind::Idempotent, "create the token", message, async |client, request| {
                client.create_token(request).await
            })
            .await?;
        let details = token_of(api, reply.token)?;
        let shown = out.show(&Created { token: token.expose().to_string(), details });
        Ok(shown.map_err(|why| SecretLost { id: token.id().to_string(), why })?)
    }
}

/// Error of `token create` after the cluster created the token. No one else has its secret.
#[derive(Debug, thiserror::Error)]
#[error(
    "could not write token {id}, so its secret is lost: {why}\n\
     the cluster has the token\n\
     try: `musterctl token revoke {id}`, then create another"
)]
struct SecretLost {
    id: String,
    why: io::Error,
}

impl CommandError for SecretLost {
    fn exit_code(&self) -> ExitCode {
        ExitCode::Failed
    }
}

fn token_of(api: &Api, token: Option<operator::Token>) -> Result<TokenView, CallError> {
    token.map(TokenView::from).ok_or_else(|| api.invalid_reply("no token in the reply"))
}

/// The only output that contains a secret, because the operator asked for it.
#[derive(Serialize)]
struct Created {
    token: String,
    details: TokenView,
}

#[derive(Debug, Serialize)]
struct Revoked {
    revoked: TokenView,
}

#[derive(Debug, Serialize)]
struct TokensView {
    #[serde(skip)]
    now: SystemTime,
    tokens: Vec<TokenView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenView {
    id: String,
    state: String,
    roles: Vec<String>,
    expires: Option<String>,
    #[serde(skip)]
    expires_ms: i64,
    uses: u32,
    uses_allowed: Option<u32>,
    node_name: Option<String>,
    description: Option<String>,
    founding: bool,
    created: Option<String>,
    created_by: Option<String>,
}

impl From<operator::Token> for TokenView {
    fn from(token: operator::Token) -> Self {
        Self {
            id: token.id,
            state: operator::token::State::word_of(token.state),
            roles: token.roles.into_iter().map(NodeRole::word_of).collect(),
            expires: rfc3339(token.expires_ms),
            expires_ms: token.expires_ms,
            uses: token.uses,
            uses_allowed: (token.uses_allowed != 0).then_some(token.uses_allowed),
            node_name: non_empty(token.node_name),
            description: non_empty(token.description),
            founding: token.founding,
            created: rfc3339(token.created_ms),
            created_by: non_empty(token.created_by),
        }
    }
}

impl Render for Created {
    fn text(&self) -> String {
        self.token.clone()
    }

    fn prose(&self) -> String {
        let until = self.details.expires.clone().unwrap_or_else(|| "it is revoked".to_owned());
        format!(
            "Valid until {until} for: {}. The token is shown only this time: put it into \
             `machine.token` of the node's configuration.",
            self.details.roles.join(", ")
        )
    }
}

impl Render for Revoked {
    fn prose(&self) -> String {
        format!("Revoked {}.", self.revoked.id)
    }
}

impl Render for TokensView {
    fn text(&self) -> String {
        let rows = self.tokens.iter().map(|token| {
            let uses = match token.uses_allowed {
                Some(allowed) => format!("{} of {allowed}", token.uses),
                None => token.uses.to_string(),
            };
            let expires = match token.expires_ms {
                0 => "never".to_owned(),
                at => format_relative(at, self.now),
            };
            let what = if token.founding { "founding" } else { "" };
            let description = token.description.clone().unwrap_or_else(|| what.to_owned());
            [
                token.id.clone(),
                token.state.clone(),
                token.roles.join(","),
                expires,
                uses,
                or_dash(token.node_name.clone().unwrap_or_default()),
                or_dash(description),
            ]
        });
        table(["ID", "STATE", "ROLES", "EXPIRES", "USES", "NODE", "DESCRIPTION"], rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::all_formats;

    #[test]
    fn tokens_are_shown_in_every_form_without_secrets() {
        let token = operator::Token {
            id: "abcdefgh".to_owned(),
            roles: vec![NodeRole::Worker.into()],
            expires_ms: 1_700_003_600_000,
            uses_allowed: 3,
            uses: 1,
            node_name: String::new(),
            description: "rack 7".to_owned(),
            founding: false,
            state: operator::token::State::Valid.into(),
            created_ms: 1_700_000_000_000,
            created_by: "alice".to_owned(),
        };
        let founding = operator::Token {
            id: "founding".to_owned(),
            founding: true,
            uses_allowed: 0,
            expires_ms: 0,
            description: String::new(),
            roles: vec![NodeRole::ControlPlane.into(), NodeRole::Worker.into()],
            ..token.clone()
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let tokens = vec![token.into(), founding.into()];
        insta::assert_snapshot!(all_formats(&TokensView { now, tokens }));
    }
}
