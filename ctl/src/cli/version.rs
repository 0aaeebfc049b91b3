//! `version`: versions of this program and of a node: the first that answers, or `--node`.

use clap::Args;
use muster_messages::operator::{NodeStatusReply, NodeStatusRequest, VersionReply};
use serde::Serialize;

use super::failure::Failure;
use crate::client::{Api, CallError, CallKind};
use crate::context::ContextError;
use crate::output::{Output, Render};

/// Show the version of this program and of the node that answers (or of --node NAME)
#[derive(Debug, Args)]
pub(crate) struct Version {
    /// Show only this program's version and ask no node
    #[arg(long)]
    client: bool,
}

impl Version {
    pub(crate) async fn run(
        self,
        api: impl FnOnce() -> Result<Api, ContextError>,
        out: &mut Output<'_>,
    ) -> Result<(), Failure> {
        let client = muster_types::VERSION.to_owned();
        if self.client {
            return Ok(out.show(&VersionView { client, server: None })?);
        }
        let asked = match api() {
            // Without a context there is no node to ask. That is not an error.
            Err(ContextError::NoContext) => {
                return Ok(out.show(&VersionView { client, server: None })?);
            }
            Err(error) => return Err(error.into()),
            Ok(mut api) => server(&mut api).await,
        };
        let (server, failure) = match asked {
            Ok(server) => (Some(server), None),
            Err(error) => (None, Some(error)),
        };
        // The failure decides the exit code, even if the output cannot be written.
        let shown = out.show(&VersionView { client, server });
        failure.map_or_else(|| Ok(shown?), |error| Err(error.into()))
    }
}

/// Asks the node that `--node` names, otherwise any node.
async fn server(api: &mut Api) -> Result<Server, CallError> {
    let what = "ask for the version";
    if api.has_target_node() {
        let NodeStatusReply { name, version, .. } = api
            .call(CallKind::Idempotent, what, NodeStatusRequest {}, async |c, r| {
                c.node_status(r).await
            })
            .await?;
        return Ok(Server { node: name, version });
    }
    let VersionReply { version, node } = api.fetch_version(what).await?;
    Ok(Server { node, version })
}

#[derive(Debug, Serialize)]
struct VersionView {
    client: String,
    server: Option<Server>,
}

#[derive(Debug, Serialize)]
struct Server {
    node: String,
    version: String,
}

impl Render for VersionView {
    fn text(&self) -> String {
        match &self.server {
            Some(Server { node, version }) => {
                format!("musterctl {}\nmusterd   {version} ({node})", self.client)
            }
            None => format!("musterctl {}", self.client),
        }
    }
}
