//! `musterctl`: what an operator types. Talks to any node of a cluster, never to a particular one.

mod args;
mod clock;
mod command;
mod connect;
mod context;
mod failure;
mod files;
mod local;
mod output;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use self::args::Cli;
use self::failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(command::run(cli, &mut io::stdout().lock())),
        Err(error) => Err(Failure::Runtime(error)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has had enough (`musterctl audit | head`).
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            writeln!(io::stderr(), "musterctl: {}", output::plain(&failure::chain(&failure))).ok();
            ExitCode::from(failure.exit_code())
        }
    }
}
