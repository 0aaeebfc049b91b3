//! Command line: the list of commands, one file per command, failures and exit codes. Commands do not
//! know the arguments of the program, only their own.

mod args;
mod audit;
mod cluster;
mod completion;
mod confirm;
mod context;
mod etcd;
mod failure;
mod failure_tolerance;
mod health;
mod init;
mod members;
mod node;
mod parse;
mod pki;
mod status;
mod token;
mod version;

use std::io::{self, Write};

use clap::{CommandFactory as _, Parser, Subcommand};

use self::args::Global;
use self::audit::Audit;
use self::cluster::ClusterCommand;
use self::completion::Completion;
use self::context::ContextCommand;
use self::etcd::EtcdCommand;
use self::failure::CommandError;
pub(crate) use self::failure::{ExitCode, Failure};
use self::health::Health;
use self::init::Init;
use self::members::Members;
use self::node::NodeCommand;
use self::pki::PkiCommand;
use self::status::Status;
use self::token::TokenCommand;
use self::version::Version;
use crate::client::{Api, CALL_TIMEOUT};
use crate::context::{ContextError, ContextStore};
use crate::output::Output;

/// Operates Muster clusters through any node, shows what each node waits for, and says what to do
/// next.
#[derive(Debug, Parser)]
#[command(name = "musterctl", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Top-level commands.
#[derive(Debug, Subcommand)]
enum Command {
    Init(Init),
    Members(Members),
    Status(Status),
    Health(Health),
    #[command(subcommand)]
    Node(NodeCommand),
    #[command(subcommand)]
    Token(TokenCommand),
    #[command(subcommand)]
    Pki(PkiCommand),
    Audit(Audit),
    #[command(subcommand)]
    Etcd(EtcdCommand),
    #[command(subcommand)]
    Cluster(ClusterCommand),
    #[command(subcommand)]
    Context(ContextCommand),
    Version(Version),
    Completion(Completion),
}

impl Command {
    /// Returns true if `--node` applies to this command.
    fn takes_node(&self) -> bool {
        match self {
            Self::Status(_) | Self::Version(_) | Self::Pki(_) => true,
            Self::Etcd(etcd) => etcd.takes_node(),
            Self::Init(_)
            | Self::Members(_)
            | Self::Health(_)
            | Self::Node(_)
            | Self::Token(_)
            | Self::Audit(_)
            | Self::Cluster(_)
            | Self::Context(_)
            | Self::Completion(_) => false,
        }
    }
}

/// Error before any command runs.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    #[error(
        "--node does not apply to this command\n\
         try: without it, or --endpoint ADDRESS to ask a particular node"
    )]
    NodeNotApplicable,
}

impl CommandError for StartError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Runtime(_) => ExitCode::Failed,
            Self::NodeNotApplicable => ExitCode::Usage,
        }
    }
}

/// Runs the given command to its end.
pub(crate) fn run(cli: Cli, out: &mut dyn Write) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(StartError::Runtime)?.block_on(run_command(cli, out))
}

async fn run_command(cli: Cli, out: &mut dyn Write) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    if global.node.is_some() && !command.takes_node() {
        return Err(StartError::NodeNotApplicable.into());
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
        Command::Context(context) => {
            let Global { context: selected, endpoints, .. } = &global;
            context.run(&ContextStore::of_user()?, selected.as_deref(), endpoints, out)
        }
        Command::Version(version) => version.run(|| api(&global), out).await,
        Command::Completion(completion) => completion.run(&mut Cli::command(), out),
    }
}

fn api(global: &Global) -> Result<Api, ContextError> {
    let context = ContextStore::of_user()?.open(global.context.as_deref())?;
    let timeout = global.timeout.unwrap_or(CALL_TIMEOUT);
    Ok(Api::new(context, global.endpoints.clone(), global.node.as_deref(), timeout))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_the_main_commands_has_examples_that_are_right() {
        for path in [
            &["init"][..],
            &["token", "create"],
            &["node", "remove"],
            &["health"],
            &["etcd", "snapshot"],
            &["context", "add"],
        ] {
            let mut command = Cli::command();
            for name in path {
                command = command.find_subcommand(name).unwrap().clone();
            }
            let help = command.render_help().to_string();
            let examples = help.split_once("Examples:").unwrap().1;
            for line in examples.lines().filter_map(|line| line.split_once("musterctl ")) {
                // Without the remark, and the rest of a shell's line.
                let line = line.1.split("  ").next().unwrap();
                let line = line.split([')', '|']).next().unwrap();
                let words = ["musterctl"].into_iter().chain(line.split_whitespace());
                let parsed = Cli::try_parse_from(words);
                assert!(parsed.is_ok(), "{path:?}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn every_command_and_option_is_documented() {
        fn check(command: &clap::Command, manual: &str) {
            for argument in command.get_arguments() {
                if let Some(long) = argument.get_long().filter(|l| !["help", "version"].contains(l))
                {
                    assert!(manual.contains(&format!("--{long}")), "--{long} is not in the manual");
                }
            }
            for below in command.get_subcommands() {
                assert!(manual.contains(below.get_name()), "{below} is not in the manual");
                check(below, manual);
            }
        }
        check(&Cli::command(), include_str!("../../../docs/guide/cli.md"));
    }
}
