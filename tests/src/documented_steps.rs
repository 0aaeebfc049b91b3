//! The commands of docs/guide/operations.md, executed by tests exactly as written.

use anyhow::{Result, ensure};

use crate::Cluster;
use crate::ctl::{CommandOutput, output_of};

const OPERATIONS_GUIDE: &str = include_str!("../../docs/guide/operations.md");

/// Returns the commands under a heading of "What to do when", one per line, without their comments.
pub fn commands_under(heading: &str) -> Result<Vec<String>> {
    let begin = format!("\n**{heading}");
    let found = OPERATIONS_GUIDE.split_once(&begin).map(|(_, rest)| rest);
    let section = found.and_then(|rest| rest.split("\n\n**").next()).unwrap_or_default();
    let command = |line: &str| line.strip_prefix("    ").map(str::to_owned);
    let bare = |line: String| line.split("  #").next().unwrap_or_default().trim().to_owned();
    let commands: Vec<_> = section.lines().filter_map(command).map(bare).collect();
    ensure!(!commands.is_empty(), "docs/guide/operations.md has no commands under {heading:?}");
    Ok(commands)
}

impl Cluster {
    /// Runs one documented line: `musterctl` and `etcdctl` on the operator's machine, anything else
    /// on `node`, whose state directory stands for `/var/lib/muster`. The test acts as service
    /// manager: `systemctl start` starts `musterd`, other calls do nothing.
    pub fn run_documented_step(&mut self, step: &str, node: &str) -> Result<()> {
        let step = step.replace("NAME", node);
        if step == "systemctl start musterd" {
            return self.start(node);
        }
        if let Some(arguments) = step.strip_prefix("musterctl ") {
            let arguments: Vec<_> = arguments.split_whitespace().collect();
            return self.ctl(&arguments)?.success().map(|_| ());
        }
        if step.starts_with("etcdctl ") {
            return self.etcdctl_shell(&step)?.success().map(|_| ());
        }
        let host = &self.node(node).host;
        let state = host.dir().join("state").display().to_string();
        let script = format!("systemctl() {{ :; }}; {}", step.replace("/var/lib/muster", &state));
        let mut command = host.command("sh");
        command.args(["-c", &script]);
        output_of(&mut command)?.success().map(|_| ())
    }

    /// Runs a shell line on the operator's machine that may call `etcdctl`.
    pub fn etcdctl_shell(&self, line: &str) -> Result<CommandOutput> {
        self.etcdctl(&["version"])?.success()?; // fetches the credentials
        let credentials = self.operator.dir().join("etcd-client");
        let mut command = self.operator.command("sh");
        command.arg("-c").arg(format!("set -a; . \"$0/etcdctl.env\"; {line}")).arg(credentials);
        output_of(&mut command)
    }
}
