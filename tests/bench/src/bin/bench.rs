//! `bench`: measures Muster next to etcd and serf. `tests/bench.sh` builds and runs it.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use muster_bench::machine::Machine;
use muster_bench::measurement::Report;
use muster_bench::{Bench, SECTIONS, Section, charts, say};

/// Measures Muster next to etcd and serf in namespaces of this machine, as root.
#[derive(Debug, Parser)]
struct Args {
    /// Sections to run [default: all]
    #[arg(value_name = "SECTION", value_parser = section)]
    sections: Vec<Section>,
    /// Fewer repetitions and shorter times: to test the benchmarks, not to quote them
    #[arg(long)]
    quick: bool,
    /// Print every measurement as JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Draw charts of the measurements into this directory
    #[arg(long, value_name = "DIR")]
    charts: Option<std::path::PathBuf>,
    /// List the sections
    #[arg(long)]
    list: bool,
}

fn section(name: &str) -> Result<Section, String> {
    let found = SECTIONS.iter().find(|section| section.name == name);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = SECTIONS.iter().map(|section| section.name).collect();
        format!("unknown section; known: {}", names.join(", "))
    })
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let mut out = std::io::stdout();
    if args.list {
        for Section { name, about, .. } in SECTIONS {
            writeln!(out, "{name:<10} {about}")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !rustix::process::geteuid().is_root() {
        bail!("the lab makes network namespaces and needs root");
    }
    let machine = Machine::describe()?;
    say(&machine.to_string());
    let mut bench = Bench { quick: args.quick, report: Report::new(machine, args.quick) };
    let sections = if args.sections.is_empty() { SECTIONS.to_vec() } else { args.sections };
    for section in sections {
        bench.run(section);
    }
    let report = bench.report;
    if let Some(directory) = &args.charts {
        charts::draw(&report, directory)?;
    }
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        write!(out, "{}", report.table())?;
    }
    Ok(if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
