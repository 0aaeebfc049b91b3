//! Command-line definition. Parses arguments and decides nothing.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::audit::Audit;
use super::cluster::Cluster;
use super::completion::Completion;
use super::context::ContextCommand;
use super::etcd::Etcd;
use super::health::Health;
use super::init::Init;
use super::members::Members;
use super::node::Node;
use super::parse;
use super::pki::Pki;
use super::status::Status;
use super::token::TokenCommand;
use super::version::Version;
use crate::client::parse_endpoint;
use crate::output::Format;

/// Operates Muster clusters through any node, shows what each node waits for, and says what to do
/// next.
#[derive(Debug, Parser)]
#[command(name = "musterctl", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Cluster to use: the name of a context, or the path of its directory
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "MUSTER_CONTEXT",
        help_heading = "Global"
    )]
    pub(crate) context: Option<String>,
    /// Ask this node instead of those of the context; may be repeated
    #[arg(short, long = "endpoint", global = true, value_name = "ADDRESS[:PORT]",
        value_parser = parse_endpoint, help_heading = "Global")]
    pub(crate) endpoints: Vec<String>,
    /// Node that the command applies to (status, version, pki show, etcd status, snapshot, defrag,
    /// forfeit-leadership)
    #[arg(short, long, global = true, value_name = "NAME", value_parser = parse::node, help_heading = "Global")]
    pub(crate) node: Option<String>,
    /// Output format
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, help_heading = "Global")]
    pub(crate) output: Format,
    /// Timeout of one call [default: 10s]; with --wait, of the whole wait [default: 5m]
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse::duration,
        allow_hyphen_values = true, help_heading = "Global")]
    pub(crate) timeout: Option<Duration>,
}

/// Top-level commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(Init),
    Members(Members),
    Status(Status),
    Health(Health),
    #[command(subcommand)]
    Node(Node),
    #[command(subcommand)]
    Token(TokenCommand),
    #[command(subcommand)]
    Pki(Pki),
    Audit(Audit),
    #[command(subcommand)]
    Etcd(Etcd),
    #[command(subcommand)]
    Cluster(Cluster),
    #[command(subcommand)]
    Context(ContextCommand),
    Version(Version),
    Completion(Completion),
}

impl Command {
    /// Returns true if `--node` applies to this command.
    pub(crate) fn takes_node(&self) -> bool {
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
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
