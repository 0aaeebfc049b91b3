//! Benchmarks of Muster next to etcd and serf, taken in one run on one machine, with real processes
//! in the lab. They measure and report; they judge nothing and no test depends on them.
//!
//! A section is a file here with a `run`. Its measurements go into the [`Report`]. Clients run in
//! the lab's network namespaces ([`muster_tests::lab::inside`]), and every load is bounded in
//! number and time.

pub mod charts;
pub mod machine;
pub mod measurement;
pub mod member_view;
pub mod peers;
pub mod usage;
pub mod write_request;

mod births;
mod failover;
mod growth;
mod idle;
mod joins;
mod members;
mod scale;
mod state;
mod writes;

use std::time::{Duration, Instant};

use anyhow::Result;
use measurement::Report;

use muster_tests::Cluster;
use muster_tests::wait::until;

/// Group of measurements, selected by its name.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    pub name: &'static str,
    pub about: &'static str,
    run: fn(&mut Bench) -> Result<()>,
}

/// All sections, in the order in which they run.
pub const SECTIONS: &[Section] = &[
    Section { name: "births", about: "from the last start to a healthy etcd", run: births::run },
    Section {
        name: "writes",
        about: "committed writes, one by one and from 64 clients",
        run: writes::run,
    },
    Section {
        name: "failover",
        about: "leader killed to the next committed write",
        run: failover::run,
    },
    Section {
        name: "idle",
        about: "memory and processor time of each daemon at rest",
        run: idle::run,
    },
    Section {
        name: "members",
        about: "40 members: seen, missed, false alarms, traffic",
        run: members::run,
    },
    Section { name: "growth", about: "cost by the number of nodes", run: growth::run },
    Section { name: "joins", about: "joins per second", run: joins::run },
    Section {
        name: "state",
        about: "size and snapshot of a state with 1,000 members",
        run: state::run,
    },
    Section {
        name: "scale",
        about: "gossip of 1,000 and 10,000 members, simulated",
        run: scale::run,
    },
];

/// One benchmark run.
#[derive(Debug)]
pub struct Bench {
    /// Fewer repetitions and shorter times, to test the benchmarks themselves.
    pub quick: bool,
    pub report: Report,
}

impl Bench {
    /// Runs one section. A failure goes into the report, and the next sections run.
    pub fn run(&mut self, section: Section) {
        let start = Instant::now();
        self.report.begin(section.name);
        let outcome = (section.run)(self);
        let seconds = start.elapsed().as_secs();
        match outcome {
            Ok(()) => say(&format!("{}: done in {seconds} s", section.name)),
            Err(error) => {
                say(&format!("{}: FAILED after {seconds} s: {error:#}", section.name));
                self.report.fail(section.name, format!("{error:#}"));
            }
        }
    }

    /// Returns the number of repetitions or seconds.
    fn amount(&self, full: u32, quick: u32) -> u32 {
        if self.quick { quick } else { full }
    }
}

/// Timeout for many nodes on one machine to become healthy.
const HEALTHY: Duration = Duration::from_mins(4);

/// Waits until a cluster of many nodes is healthy. Retries when the call itself times out, as it
/// may while all of them start.
fn healthy(cluster: &Cluster) -> Result<()> {
    until("`musterctl health` to succeed", HEALTHY, || match cluster.ctl(&["health"]) {
        Ok(output) if output.code == Some(0) => Ok(()),
        Ok(output) => Err(format!("{}{}", output.out, output.err)),
        Err(error) => Err(format!("{error:#}")),
    })
}

/// Prints progress. Measurements go to standard output.
#[expect(clippy::print_stderr, reason = "progress for the person who waits")]
pub fn say(what: &str) {
    eprintln!("bench: {what}");
}
