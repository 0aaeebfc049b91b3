//! The real programs of etcd for one host, one of which can be held up before it begins its work: for
//! tests of what happens in a moment that is otherwise too short.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use crate::Cluster;
use crate::cluster::HEALTHY;
use crate::lab::run;
use crate::wait::until;

/// What is held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// The start of an etcd member.
    Etcd,
    /// The restore of a snapshot.
    Restore,
}

/// `etcd` and `etcdctl` of one host, held until they are let go.
#[derive(Debug)]
pub struct Held {
    dir: PathBuf,
    /// The cluster's file, with this etcd.
    pub config: PathBuf,
}

impl Held {
    pub fn on(cluster: &Cluster, name: &str, work: Work) -> Result<Self> {
        let dir = cluster.node(name).host.dir().join("held");
        fs::create_dir(&dir)?;
        let begins = match work {
            Work::Etcd => "--name=",
            Work::Restore => "snapshot restore",
        };
        for program in ["etcd", "etcdctl"] {
            let real = run("sh", &["-c", &format!("command -v {program}")])?;
            let script = format!(
                "#!/bin/sh\ncase \"$*\" in *'{begins}'*) d=${{0%/*}}; : > $d/asked\n\
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

    /// Waits until the work was to begin.
    pub fn until_asked(&self) -> Result<()> {
        let asked = self.dir.join("asked");
        until("what is held up to be asked for", HEALTHY, || {
            if asked.exists() { Ok(()) } else { Err("nobody has") }
        })
    }

    pub fn let_go(&self) -> Result<()> {
        Ok(fs::remove_file(self.dir.join("hold"))?)
    }
}
