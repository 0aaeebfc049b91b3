//! Injects the faults of a schedule into a cluster of the lab.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use super::access::Addresses;
use super::schedule::{Fault, Target};
use crate::cluster::Cluster;
use crate::lab::{Host, Lab};

/// Action that ends a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    Start(Vec<String>),
    Thaw(String),
    Resume(String),
    Heal,
    SetClock(String),
    Nothing,
}

/// Injects faults and undoes them.
#[derive(Debug)]
pub struct FaultInjector<'a> {
    pub lab: &'a Lab,
    pub cluster: Cluster,
    pub addresses: Addresses,
}

impl FaultInjector<'_> {
    /// Injects a fault. [`Target::Leader`] means `leader`. Returns how to undo it, and the node
    /// that it hit.
    pub fn inject(&mut self, fault: Fault, leader: Option<&str>) -> Result<(Undo, String)> {
        let who = |target: Target| match (target, leader) {
            (Target::Leader, Some(leader)) => leader.to_owned(),
            (Target::Leader, None) => name(0),
            (Target::Node(node), _) => name(node),
        };
        let hit = match fault {
            Fault::Kill(t)
            | Fault::Freeze(t)
            | Fault::Pause(t)
            | Fault::Minority { around: t, .. }
            | Fault::Clock { node: t, .. }
            | Fault::InboundCut(t)
            | Fault::OutboundCut(t)
            | Fault::Bridge(t) => who(t),
            Fault::OneWayCut { to, .. } => name(to),
            Fault::AddressChange(node) => name(node),
            Fault::PowerLoss | Fault::Isolated | Fault::Loss { .. } => "all".to_owned(),
        };
        let undo = match fault {
            Fault::Kill(_) => self.kill(vec![hit.clone()])?,
            Fault::PowerLoss => self.kill(self.cluster.names())?,
            Fault::Freeze(_) => {
                self.host(&hit).freeze()?;
                Undo::Thaw(hit.clone())
            }
            Fault::Pause(_) => self.pause(&hit)?,
            Fault::Clock { seconds, .. } => {
                self.host(&hit).set_clock(seconds)?;
                Undo::SetClock(hit.clone())
            }
            Fault::AddressChange(node) => {
                let address = new_address(node);
                self.cluster.node_mut(&hit).host.change_address(address)?;
                self.addresses.set(&hit, address);
                Undo::Nothing
            }
            Fault::Minority { .. }
            | Fault::Isolated
            | Fault::InboundCut(_)
            | Fault::OutboundCut(_)
            | Fault::OneWayCut { .. }
            | Fault::Bridge(_)
            | Fault::Loss { .. } => {
                self.cut(fault, &hit)?;
                Undo::Heal
            }
        };
        Ok((undo, hit))
    }

    /// Ends a fault.
    pub fn undo(&mut self, undo: Undo) -> Result<()> {
        match undo {
            Undo::Start(names) => names.iter().try_for_each(|name| self.cluster.start(name)),
            Undo::Thaw(name) => self.host(&name).thaw(),
            // The process may have been killed meanwhile.
            Undo::Resume(name) => match &self.cluster.node(&name).process {
                Some(process) => process.resume(),
                None => Ok(()),
            },
            Undo::Heal => self.lab.heal(),
            Undo::SetClock(name) => self.host(&name).set_clock(0),
            Undo::Nothing => Ok(()),
        }
    }

    /// Kills those that run. Undo starts them again.
    fn kill(&mut self, names: Vec<String>) -> Result<Undo> {
        let running = |name: &String| self.cluster.node(name).process.is_some();
        let names: Vec<_> = names.into_iter().filter(running).collect();
        for name in &names {
            self.cluster.kill(name).with_context(|| format!("kill {name}"))?;
        }
        Ok(Undo::Start(names))
    }

    fn pause(&self, name: &str) -> Result<Undo> {
        match &self.cluster.node(name).process {
            Some(process) => {
                process.pause()?;
                Ok(Undo::Resume(name.to_owned()))
            }
            None => Ok(Undo::Nothing),
        }
    }

    /// Injects a network fault around `hit`.
    fn cut(&self, fault: Fault, hit: &str) -> Result<()> {
        let names = self.cluster.names();
        let all: Vec<&Host> = names.iter().map(|name| self.host(name)).collect();
        let at = names.iter().position(|name| name == hit).unwrap_or(0);
        // All other hosts, in order from the next one.
        let others: Vec<&Host> = (1..all.len()).map(|step| all[(at + step) % all.len()]).collect();
        match fault {
            Fault::Minority { with, .. } => {
                let (near, far) = others.split_at(usize::from(with));
                self.lab.partition(&[&[all[at]], near].concat(), far)
            }
            Fault::Isolated => self.lab.isolate_all(&all),
            Fault::InboundCut(_) => {
                others.iter().try_for_each(|o| self.lab.cut_one_way(o, all[at]))
            }
            Fault::OutboundCut(_) => {
                others.iter().try_for_each(|o| self.lab.cut_one_way(all[at], o))
            }
            Fault::OneWayCut { from, .. } => self.lab.cut_one_way(self.host(&name(from)), all[at]),
            Fault::Bridge(_) => {
                let (near, far) = others.split_at(others.len() / 2);
                self.lab.partition(near, far)
            }
            Fault::Loss { percent } => self.lab.lose(percent),
            Fault::Kill(_)
            | Fault::PowerLoss
            | Fault::Freeze(_)
            | Fault::Pause(_)
            | Fault::AddressChange(_)
            | Fault::Clock { .. } => Ok(()),
        }
    }

    fn host(&self, name: &str) -> &Host {
        &self.cluster.node(name).host
    }
}

/// New address of a node whose address changes.
pub(super) fn new_address(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 100 + node)
}

/// Returns the name of a node by its number in a schedule.
pub fn name(node: u8) -> String {
    format!("cp-{}", node + 1)
}
