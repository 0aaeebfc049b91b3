//! Traffic counters of the bridge.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Host, Lab, run};

impl Lab {
    /// Returns the bytes that each host has sent so far, as the bridge received them.
    pub fn sent(&self, hosts: &[&Host]) -> Result<Vec<u64>> {
        let text = run("ip", &["-n", &self.lan(), "-s", "-j", "link", "show"])?;
        let links: Vec<Value> = serde_json::from_str(&text).context("ip -j")?;
        let of = |host: &&Host| {
            let link = links.iter().find(|link| link["ifname"] == host.port());
            link.and_then(|link| link["stats64"]["rx"]["bytes"].as_u64())
                .with_context(|| format!("the port of {} is counted", host.name()))
        };
        hosts.iter().map(of).collect()
    }
}
