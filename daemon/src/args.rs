//! The command line of `musterd`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Parser, ValueEnum};
use muster_types::NodeName;

/// One node of a Muster cluster. All nodes use the same configuration file.
#[derive(Debug, Clone, Parser)]
#[command(name = "musterd", version = muster_types::VERSION)]
pub struct Args {
    /// The configuration file, the same on every node
    #[arg(
        long,
        value_name = "FILE",
        value_parser = absolute_path(),
        default_value = "/etc/muster/node.yaml"
    )]
    pub config: PathBuf,
    /// Directory for this node's identity, Raft log and etcd data [default: machine.stateDir of the
    /// configuration, else /var/lib/muster]
    #[arg(long, value_name = "DIR", value_parser = absolute_path())]
    pub state_dir: Option<PathBuf>,
    /// This node's name [default: the host name up to its first dot]
    #[arg(long, value_name = "NAME")]
    pub name: Option<NodeName>,
    /// Use only this address and bind no other [default: all addresses of the machine that the
    /// configuration allows]
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Restore this etcd snapshot when the cluster is born; give the same file on every founder
    #[arg(long, value_name = "FILE", value_parser = absolute_path())]
    pub restore_etcd: Option<PathBuf>,
    /// Check the configuration and this machine, change nothing, and exit
    #[arg(long)]
    pub check: bool,
    /// Format of log lines
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

/// Parses a path and makes it absolute. etcd runs in another directory and gets paths below the state
/// directory, so a relative one would name another file there.
fn absolute_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(std::path::absolute)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// With a relative state directory etcd never started, and `--check` reported no problem.
    #[test]
    fn every_path_is_absolute() {
        let args = ["musterd", "--config", "a", "--state-dir", "./b/c", "--restore-etcd", "../d"];
        let args = Args::try_parse_from(args).unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(args.config, here.join("a"));
        assert_eq!(args.state_dir, Some(here.join("b/c")));
        assert_eq!(args.restore_etcd, Some(here.join("../d")));
        let args = Args::try_parse_from(["musterd", "--state-dir", "/s"]).unwrap();
        assert_eq!(args.state_dir.as_deref(), Some(Path::new("/s")));
        assert!(Args::try_parse_from(["musterd", "--state-dir", ""]).is_err());
    }
}
