//! A cluster in the lab: one configuration file, a host per node, and an operator's machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use muster_types::ClusterId;
use serde_json::{Value, json};

use crate::cluster_id_on_disk;
use crate::ctl::{CommandOutput, binary, output_of};
use crate::dns::Dns;
use crate::lab::{Host, Lab, Process};
use crate::wait::until;

/// Timeout for a cluster on a busy two-core machine to become healthy.
pub const HEALTHY: Duration = Duration::from_mins(1);

/// Discovery source of all nodes. Exactly one is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    Mdns,
    Dns,
    Static,
    /// None: nodes use remembered peers only.
    Off,
}

/// Size and discovery of a cluster.
#[derive(Debug, Clone)]
pub struct Plan {
    pub control_planes: u8,
    pub workers: u8,
    pub expect: u8,
    pub discovery: Discovery,
}

impl Plan {
    /// `control_planes` machines that are all founders, found by static addresses.
    pub fn of(control_planes: u8) -> Self {
        Self { control_planes, workers: 0, expect: control_planes, discovery: Discovery::Static }
    }

    #[must_use]
    pub fn workers(self, workers: u8) -> Self {
        Self { workers, ..self }
    }

    #[must_use]
    pub fn expect(self, expect: u8) -> Self {
        Self { expect, ..self }
    }

    #[must_use]
    pub fn discovery(self, discovery: Discovery) -> Self {
        Self { discovery, ..self }
    }
}

/// Machine of the cluster.
#[derive(Debug)]
pub struct Node {
    pub host: Host,
    pub process: Option<Process>,
}

/// Machines with one configuration file, and an operator's machine.
#[derive(Debug)]
pub struct Cluster {
    pub nodes: BTreeMap<String, Node>,
    /// Operator's machine.
    pub operator: Host,
    pub config: PathBuf,
    discovery: Discovery,
    name: &'static str,
    dns: Option<Dns>,
}

impl Cluster {
    /// Makes hosts `cp-1…` and `worker-1…`, and `node.yaml` as `musterctl init` writes it, except
    /// for the discovery section. Starts nothing.
    pub fn plan(lab: &Lab, plan: &Plan) -> Result<Self> {
        let operator = lab.host("operator")?;
        let mut nodes = BTreeMap::new();
        for number in 1..=plan.control_planes {
            let name = format!("cp-{number}");
            nodes.insert(name.clone(), Node { host: lab.host(&name)?, process: None });
        }
        for number in 1..=plan.workers {
            let name = format!("worker-{number}");
            nodes.insert(name.clone(), Node { host: lab.host(&name)?, process: None });
        }
        let addresses: BTreeMap<String, Ipv4Addr> =
            nodes.iter().map(|(name, node)| (name.clone(), node.host.address())).collect();
        let dns = match plan.discovery {
            Discovery::Dns => Some(Dns::serve(&lab.host("dns")?, "lab.example", &addresses)?),
            Discovery::Mdns | Discovery::Static | Discovery::Off => None,
        };
        let config = operator.dir().join("node.yaml");
        let cluster = Self { nodes, operator, config, discovery: plan.discovery, name: "lab", dns };
        cluster.init(plan.expect)?;
        Ok(cluster)
    }

    fn init(&self, expect: u8) -> Result<()> {
        let out = self.operator.dir().join("init");
        let expect = expect.to_string();
        let out_text = out.display().to_string();
        self.ctl_bare(&["init", self.name, "--control-planes", &expect, "--out", &out_text])?
            .success()?;
        let text = std::fs::read_to_string(out.join("node.yaml"))?;
        let mut document: Value = serde_saphyr::from_str(&text).context("node.yaml of init")?;
        document["machine"]["discovery"] = self.discovery_section();
        document["patches"] = json!([
            {"match": {"name": "worker-*"}, "patch": {"machine": {"type": "worker"}}}
        ]);
        self.write_config(&self.config, &document)
    }

    /// Writes a variant of the configuration. JSON is YAML.
    pub fn write_config(&self, path: &std::path::Path, document: &Value) -> Result<()> {
        std::fs::write(path, serde_json::to_string_pretty(document)?)?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path, private)?;
        Ok(())
    }

    /// Returns the configuration as data, to make a variant of it.
    pub fn document(&self) -> Result<Value> {
        Ok(serde_json::from_str(&std::fs::read_to_string(&self.config)?)?)
    }

    fn discovery_section(&self) -> Value {
        match self.discovery {
            Discovery::Mdns => json!({"mdns": true}),
            Discovery::Off => json!({"mdns": false}),
            Discovery::Static => {
                let peers: Vec<_> = self
                    .nodes
                    .iter()
                    .filter(|(name, _)| name.starts_with("cp-"))
                    .map(|(_, node)| {
                        format!("{}:{}", node.host.address(), muster_types::DEFAULT_PORT)
                    })
                    .collect();
                json!({"mdns": false, "static": peers})
            }
            Discovery::Dns => {
                let server = self.dns.as_ref().map(|dns| dns.address().to_string());
                json!({"mdns": false, "dns": {"domain": "lab.example", "servers": [server]}})
            }
        }
    }

    /// Turns discovery off in the file: a node that starts now has remembered peers only.
    pub fn disable_discovery(&self) -> Result<()> {
        let mut document = self.document()?;
        document["machine"]["discovery"] = json!({"mdns": false});
        self.write_config(&self.config, &document)
    }

    pub fn node(&self, name: &str) -> &Node {
        self.nodes.get(name).unwrap_or_else(|| panic!("the plan has no {name}"))
    }

    pub fn node_mut(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(name).unwrap_or_else(|| panic!("the plan has no {name}"))
    }

    pub fn names(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    /// Returns the cluster ids on each node's disk, whether it runs or not.
    pub fn cluster_ids_on_disk(&self) -> Result<BTreeMap<String, BTreeSet<ClusterId>>> {
        let read = |(name, node): (&String, &Node)| {
            let found = cluster_id_on_disk::read(&node.host.dir().join("state"));
            Ok((name.clone(), found.with_context(|| format!("the disk of {name}"))?))
        };
        self.nodes.iter().map(read).collect()
    }

    /// Starts `musterd` on one host.
    pub fn start(&mut self, name: &str) -> Result<()> {
        let config = self.config.clone();
        self.start_with(name, &config, &[])
    }

    /// Starts `musterd` with another file and more arguments.
    pub fn start_with(
        &mut self,
        name: &str,
        config: &std::path::Path,
        more: &[&str],
    ) -> Result<()> {
        let node = self.node_mut(name);
        ensure!(node.process.is_none(), "{name} is already running");
        let mut command = node.host.command(binary("musterd")?);
        command.arg("--config").arg(config);
        command.arg("--state-dir").arg(node.host.dir().join("state"));
        command.args(more);
        node.process = Some(node.host.spawn(command, "musterd")?);
        Ok(())
    }

    /// Starts `musterd` on every host.
    pub fn start_all(&mut self) -> Result<()> {
        self.names().iter().try_for_each(|name| self.start(name))
    }

    /// Kills everything on one machine at once, like a power cut.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let node = self.node_mut(name);
        let mut process = node.process.take().context("the node is not running")?;
        process.kill()?;
        node.host.kill_all()
    }

    /// Runs `musterctl` on the operator's machine with every control-plane address.
    pub fn ctl(&self, args: &[&str]) -> Result<CommandOutput> {
        let endpoints: Vec<_> = self
            .nodes
            .iter()
            .filter(|(name, _)| name.starts_with("cp-"))
            .map(|(_, node)| node.host.address().to_string())
            .collect();
        let mut all: Vec<&str> = args.to_vec();
        for endpoint in &endpoints {
            all.extend(["--endpoint", endpoint]);
        }
        self.ctl_bare(&all)
    }

    /// Runs `musterctl` with this node as its only endpoint.
    pub fn ctl_at(&self, name: &str, args: &[&str]) -> Result<CommandOutput> {
        let endpoint = self.node(name).host.address().to_string();
        let mut all: Vec<&str> = args.to_vec();
        all.extend(["--endpoint", &endpoint]);
        self.ctl_bare(&all)
    }

    fn ctl_bare(&self, args: &[&str]) -> Result<CommandOutput> {
        let mut command = self.operator.command(binary("musterctl")?);
        command.args(args).env("MUSTER_CONFIG", self.operator.dir().join("contexts"));
        output_of(&mut command)
    }

    /// `members -o json`.
    pub fn members(&self) -> Result<Value> {
        self.ctl(&["members", "-o", "json"])?.json()
    }

    /// Waits until `musterctl health` succeeds.
    pub fn until_healthy(&self) -> Result<()> {
        until("`musterctl health` to succeed", HEALTHY, || match self.ctl(&["health"]) {
            Ok(output) if output.code == Some(0) => Ok(()),
            Ok(output) => Err(format!("{}{}", output.out, output.err)),
            Err(error) => Err(format!("{error:#}")),
        })
    }

    /// Waits until `members -o json` satisfies `fits`.
    pub fn until_members(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        until(what, HEALTHY, || match self.members() {
            Ok(members) if fits(&members) => Ok(members),
            Ok(members) => Err(members.to_string()),
            Err(error) => Err(format!("{error:#}")),
        })
    }

    /// Directory of the operator's context for this cluster.
    pub fn context(&self) -> PathBuf {
        self.operator.dir().join("contexts/contexts").join(self.name)
    }

    /// Returns the directory with an etcd client certificate. The first call creates it.
    pub fn etcd_credentials(&self) -> Result<PathBuf> {
        let out = self.operator.dir().join("etcd-client");
        if !out.exists() {
            let out = out.display().to_string();
            self.ctl(&["etcd", "client-config", "--out", &out])?.success()?;
        }
        Ok(out)
    }

    /// Runs `etcdctl` on the operator's machine with the environment of `etcd client-config`.
    pub fn etcdctl(&self, args: &[&str]) -> Result<CommandOutput> {
        let out = self.etcd_credentials()?;
        let mut command = self.operator.command("sh");
        command
            .args(["-c", "set -a; . \"$0/etcdctl.env\"; exec etcdctl \"$@\""])
            .arg(&out)
            .args(args);
        output_of(&mut command)
    }
}
