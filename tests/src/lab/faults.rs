//! Network faults, made by the packet filter of the bridge.

use anyhow::Result;

use super::{Host, Lab, run};

impl Lab {
    /// Removes all faults.
    pub fn heal(&self) -> Result<()> {
        self.nft("flush chain bridge lab faults")
    }

    /// Cuts `left` off from `right`, in both directions.
    pub fn partition(&self, left: &[&Host], right: &[&Host]) -> Result<()> {
        for a in left {
            for b in right {
                self.cut_one_way(a, b)?;
                self.cut_one_way(b, a)?;
            }
        }
        Ok(())
    }

    /// Drops every frame from `from` to `to`. The other direction still works.
    pub fn cut_one_way(&self, from: &Host, to: &Host) -> Result<()> {
        let (from, to) = (from.port(), to.port());
        self.nft(&format!("add rule bridge lab faults iifname {from} oifname {to} drop"))
    }

    /// Cuts every host of `hosts` off from every other one.
    pub fn isolate_all(&self, hosts: &[&Host]) -> Result<()> {
        for (at, host) in hosts.iter().enumerate() {
            self.partition(&[host], &hosts[at + 1..])?;
        }
        Ok(())
    }

    /// Drops this percentage of all frames at random.
    pub fn lose(&self, percent: u8) -> Result<()> {
        self.nft(&format!("add rule bridge lab faults numgen random mod 100 < {percent} drop"))
    }

    pub(super) fn reset_faults(&self) -> Result<()> {
        self.nft(
            "add table bridge lab; \
             add chain bridge lab faults { type filter hook forward priority 0; }",
        )?;
        self.heal()
    }

    fn nft(&self, rules: &str) -> Result<()> {
        run("ip", &["netns", "exec", &self.lan(), "nft", rules])?;
        Ok(())
    }
}
