//! Options of every command. Parses arguments and decides nothing.

use std::time::Duration;

use clap::Args;

use super::parse;
use crate::client::parse_endpoint;
use crate::output::Format;

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
