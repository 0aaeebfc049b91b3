//! `musterctl`: the operators' command-line program. It works through any node of a cluster.
//!
//! Modules are layers: `cli`, then `client` and `local`, then `context`; all of them use `output`,
//! `files` and `clock`.

mod cli;
mod client;
mod clock;
mod context;
mod files;
mod local;
mod output;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use muster_types::error::chain;
use muster_types::text::sanitize_lines;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use self::cli::Cli;

fn main() -> ExitCode {
    // A core dump would contain the operator's key. If the kernel refuses, the command runs anyway.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => exit_with_usage_error(&error),
    };
    match cli::run(cli, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            let message = output::redact_tokens(&sanitize_lines(&chain(&failure)));
            writeln!(io::stderr(), "musterctl: {message}").ok();
            ExitCode::from(failure.exit_code() as u8)
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
