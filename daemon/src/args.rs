//! The command line of `musterd`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use muster_types::NodeName;

/// One node of a Muster cluster. All nodes run it from one and the same configuration file.
#[derive(Debug, Clone, Parser)]
#[command(name = "musterd", version = muster_types::VERSION)]
pub struct Args {
    /// The configuration file, the same on every node
    #[arg(long, value_name = "FILE", default_value = "/etc/muster/node.yaml")]
    pub config: PathBuf,
    /// Where this node keeps its identity, its log and etcd's data [default: machine.stateDir of the
    /// configuration, else /var/lib/muster]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// This node's name [default: the host name up to its first dot]
    #[arg(long, value_name = "NAME")]
    pub name: Option<NodeName>,
    /// Use this one address and bind nothing else [default: all addresses of the machine that the
    /// configuration allows]
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Restore this etcd snapshot when the cluster is born; give the same file on every founder
    #[arg(long, value_name = "FILE")]
    pub restore_etcd: Option<PathBuf>,
    /// Check the configuration and this machine, change nothing, and exit
    #[arg(long)]
    pub check: bool,
    /// How log lines are written
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}
