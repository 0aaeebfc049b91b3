//! `version`: of this program and of the node that answers.

use clap::Args;
use muster_proto::wire::operator::{VersionReply, VersionRequest};
use serde::Serialize;

use crate::connect::{Api, Kind};
use crate::context::ContextError;
use crate::failure::Failure;
use crate::output::{Output, View};

/// Show the version of this program and of the node that answers
#[derive(Debug, Args)]
pub(crate) struct Version {
    /// Ask no node
    #[arg(long)]
    client: bool,
}

impl Version {
    pub(crate) async fn run(
        self,
        api: impl FnOnce() -> Result<Api, ContextError>,
        out: &mut Output<'_>,
    ) -> Result<(), Failure> {
        let client = muster_proto::VERSION.to_owned();
        if self.client {
            return Ok(out.show(&VersionView { client, server: None })?);
        }
        let asked = match api() {
            // Without any cluster there is nobody to ask, and nothing wrong.
            Err(ContextError::None) => return Ok(out.show(&VersionView { client, server: None })?),
            Err(error) => return Err(error.into()),
            Ok(mut api) => {
                api.call(
                    Kind::Idempotent,
                    "ask for the version",
                    VersionRequest {},
                    async |c, r| c.version(r).await,
                )
                .await
            }
        };
        let (server, failure) = match asked {
            Ok(VersionReply { version, node }) => (Some(Server { node, version }), None),
            Err(error) => (None, Some(error)),
        };
        out.show(&VersionView { client, server })?;
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
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

impl View for VersionView {
    fn text(&self) -> String {
        match &self.server {
            Some(Server { node, version }) => {
                format!("musterctl {}\nmusterd   {version} ({node})", self.client)
            }
            None => format!("musterctl {}", self.client),
        }
    }
}
