//! serf: encrypted agents on hosts of the lab, with the defaults for a local network.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::member_view::{MemberEvent, MemberView, Tail};
use muster_tests::lab::{Host, Lab, Process, run};
use muster_tests::wait::until;

/// serf agent.
#[derive(Debug)]
pub struct Agent {
    pub name: String,
    pub host: Host,
    pub process: Option<Process>,
}

/// Cluster of serf agents.
#[derive(Debug)]
pub struct Serf {
    pub agents: Vec<Agent>,
    key: String,
}

impl Serf {
    /// Makes hosts `serf-1…`. Starts nothing.
    pub fn plan(lab: &Lab, count: u8) -> Result<Self> {
        let key = run("serf", &["keygen"])?.trim().to_owned();
        let mut agents = Vec::new();
        for number in 1..=count {
            let name = format!("serf-{number}");
            agents.push(Agent { host: lab.host(&name)?, name, process: None });
        }
        Ok(Self { agents, key })
    }

    /// Starts an agent that joins through the first one.
    pub fn start(&mut self, at: usize) -> Result<()> {
        let first = self.agents[0].host.address();
        let key = format!("-encrypt={}", self.key);
        let agent = &mut self.agents[at];
        let mut command = agent.host.command("serf");
        command.args(["agent", "-profile=lan", "-log-level=info", "-rpc-addr=127.0.0.1:7373"]);
        command.arg(format!("-node={}", agent.name)).arg(key);
        command.arg(format!("-bind={}:7946", agent.host.address()));
        if at > 0 {
            command.arg(format!("-retry-join={first}")).arg("-retry-interval=1s");
        }
        agent.process = Some(agent.host.spawn(command, "serf")?);
        Ok(())
    }

    /// Starts the first agent, waits until it listens, and starts all others.
    pub fn start_all(&mut self) -> Result<()> {
        self.start(0)?;
        let mut log = Tail::of(self.agents[0].process.as_ref().context("it runs")?.log());
        until("the first serf agent to listen", Duration::from_secs(20), || {
            let lines = log.lines().map_err(|error| error.to_string())?;
            let listens = lines.iter().any(|line| line.contains("EventMemberJoin"));
            if listens { Ok(()) } else { Err(lines.join("\n")) }
        })?;
        (1..self.agents.len()).try_for_each(|at| self.start(at))
    }

    /// Returns a view per agent.
    pub fn views(&self) -> Vec<MemberView> {
        let log = |agent: &Agent| agent.host.dir().join("serf.log");
        self.agents.iter().map(|agent| MemberView::of(&log(agent), read)).collect()
    }
}

/// Parses `… serf: EventMemberJoin: NAME ADDRESS`.
fn read(line: &str) -> Option<MemberEvent> {
    let (_, event) = line.split_once("serf: EventMember")?;
    let (kind, who) = event.split_once(": ")?;
    let name = who.split(' ').next()?.to_owned();
    match kind {
        "Join" => Some(MemberEvent::Seen(name)),
        "Failed" | "Leave" => Some(MemberEvent::Gone(name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_serf_are_read() {
        let line = |event: &str| format!("    2026/01/02 03:04:05 [INFO] serf: {event}");
        assert_eq!(
            read(&line("EventMemberJoin: serf-2 10.77.0.2")),
            Some(MemberEvent::Seen("serf-2".to_owned()))
        );
        assert_eq!(
            read(&line("EventMemberFailed: serf-2 10.77.0.2")),
            Some(MemberEvent::Gone("serf-2".to_owned()))
        );
        assert_eq!(read(&line("EventMemberUpdate: serf-2")), None);
    }
}
