//! The real etcd programs of one host, one of which pauses before a step: for tests of a moment
//! that is otherwise too short.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use crate::Cluster;
use crate::cluster::HEALTHY;
use crate::lab::run;
use crate::wait::until;

/// The step that pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PausedStep {
    /// The start of an etcd member.
    Start,
    /// The restore of a snapshot.
    Restore,
}

/// `etcd` and `etcdctl` of one host, paused until resumed.
#[derive(Debug)]
pub struct PausedEtcd {
    dir: PathBuf,
    /// The cluster's configuration, with this etcd.
    pub config: PathBuf,
}

impl PausedEtcd {
    pub fn on(cluster: &Cluster, name: &str, work: PausedStep) -> Result<Self> {
        let dir = cluster.node(name).host.dir().join("paused-etcd");
        fs::create_dir(&dir)?;
        let argument = match work {
            PausedStep::Start => "--name=",
            PausedStep::Restore => "snapshot restore",
        };
        for program in ["etcd", "etcdctl"] {
            let real = run("sh", &["-c", &format!("command -v {program}")])?;
            let script = format!(
                "#!/bin/sh\ncase \"$*\" in *'{argument}'*) d=${{0%/*}}; : > $d/reached\n\
                 while [ -e $d/hold ]; do sleep 0.1; done;; esac\nexec {} \"$@\"\n",
                real.trim()
            );
            fs::write(dir.join(program), script)?;
            fs::set_permissions(dir.join(program), fs::Permissions::from_mode(0o755))?;
        }
        fs::write(dir.join("hold"), "")?;
        let mut document = cluster.document()?;
        document["machine"]["etcd"] = json!({"binary": dir.join("etcd").display().to_string()});
        let config = dir.join("node.yaml");
        cluster.write_config(&config, &document)?;
        Ok(Self { dir, config })
    }

    /// Waits until the paused step is reached.
    pub fn until_reached(&self) -> Result<()> {
        let reached = self.dir.join("reached");
        until("the paused step to be reached", HEALTHY, || {
            if reached.exists() { Ok(()) } else { Err("not reached") }
        })
    }

    pub fn resume(&self) -> Result<()> {
        Ok(fs::remove_file(self.dir.join("hold"))?)
    }
}
