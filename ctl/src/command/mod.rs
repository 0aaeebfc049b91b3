//! The commands, one file per command.

pub(crate) mod audit;
pub(crate) mod cluster;
pub(crate) mod completion;
pub(crate) mod context;
pub(crate) mod etcd;
pub(crate) mod health;
pub(crate) mod init;
pub(crate) mod members;
pub(crate) mod node;
pub(crate) mod pki;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod version;

use std::io::Write;

use crate::args::{Cli, Command, Global};
use crate::client::{Api, CALL_TIMEOUT};
use crate::context::{ContextError, ContextStore};
use crate::failure::Failure;
use crate::output::Output;

/// Runs the given command.
pub(crate) async fn run(cli: Cli, out: &mut dyn Write) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    if global.node.is_some() && !command.takes_node() {
        return Err(Failure::NodeNotApplicable);
    }
    let out = &mut Output::new(global.output, out);
    match command {
        Command::Init(init) => init.run(&ContextStore::of_user()?, &global.endpoints, out),
        Command::Members(members) => members.run(&mut api(&global)?, out).await,
        Command::Status(status) => status.run(&mut api(&global)?, out).await,
        Command::Health(health) => health.run(&mut api(&global)?, global.timeout, out).await,
        Command::Node(node) => node.run(&mut api(&global)?, out).await,
        Command::Token(token) => token.run(&mut api(&global)?, out).await,
        Command::Pki(pki) => pki.run(&mut api(&global)?, out).await,
        Command::Audit(audit) => audit.run(&mut api(&global)?, out).await,
        Command::Etcd(etcd) => etcd.run(&mut api(&global)?, out).await,
        Command::Cluster(cluster) => {
            cluster.run(&ContextStore::of_user()?, global.timeout, out).await
        }
        Command::Context(context) => context.run(&ContextStore::of_user()?, &global, out),
        Command::Version(version) => version.run(|| api(&global), out).await,
        Command::Completion(completion) => completion.run(out),
    }
}

fn api(global: &Global) -> Result<Api, ContextError> {
    let context = ContextStore::of_user()?.open(global.context.as_deref())?;
    let timeout = global.timeout.unwrap_or(CALL_TIMEOUT);
    Ok(Api::new(context, global.endpoints.clone(), global.node.as_deref(), timeout))
}
