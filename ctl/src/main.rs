//! `musterctl`: the operators' command-line program. It works through any node of a cluster.

mod args;
mod client;
mod clock;
mod command;
mod context;
mod failure;
mod files;
#[cfg(test)]
mod fuzz;
mod local;
mod output;
mod parse;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use muster_types::error::chain;
use muster_types::text::sanitize_lines;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use self::args::Cli;
use self::failure::Failure;

fn main() -> ExitCode {
    // A core dump would contain the operator's key. If the kernel refuses, the command runs anyway.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => exit_with_usage_error(&error),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(command::run(cli, &mut io::stdout().lock())),
        Err(error) => Err(Failure::Runtime(error)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // The reader closed the pipe (`musterctl audit | head`); not an error.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let message = output::redact_tokens(&sanitize_lines(&chain(&failure)));
            writeln!(io::stderr(), "musterctl: {message}").ok();
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Exits as clap does. clap repeats the arguments, so the secret of a token is redacted.
fn exit_with_usage_error(error: &clap::Error) -> ! {
    let message = error.to_string();
    let redacted = output::redact_tokens(&message);
    if redacted == message {
        error.exit();
    }
    write!(io::stderr(), "{redacted}").ok();
    std::process::exit(error.exit_code())
}
