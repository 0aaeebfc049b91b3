//! `musterd`: parse, check, compose, run, and one exit code for each kind of end.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use musterd::args::{Args, LogFormat};
use musterd::compose;
use musterd::core_dump;
use musterd::fatal::Fatal;
use musterd::prepare;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How long the threads that write may take over their end.
const LAST_WRITES: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    // Whatever this process and its children make is for this user alone.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let args = Args::parse();
    let format = args.log_format;
    log_to_stderr(format);
    if let Err(error) = core_dump::forbid() {
        // A kernel that refuses this is no reason to leave the cluster without a node.
        tracing::warn!(%error, "core dumps cannot be forbidden: a crash may write keys to disk");
    }
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            report(&fatal, format);
            fatal.exit_code()
        }
    }
}

/// What is unfit is told to the person who starts the program; everything else is a line of the log.
fn report(fatal: &Fatal, format: LogFormat) {
    if fatal.is_unfit() && format == LogFormat::Text {
        // Nobody is left to be told that the standard error is gone.
        writeln!(io::stderr(), "musterd: {}", fatal.told()).ok();
    } else {
        tracing::error!(error = muster_types::error::chain(fatal), "musterd ends");
    }
}

fn start(args: Args) -> Result<(), Fatal> {
    let check_only = args.check;
    let checked = prepare::check(args)?;
    if check_only {
        tracing::info!("configuration and machine are fit");
        return Ok(());
    }
    let prepared = checked.open()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()
        .map_err(Fatal::Runtime)?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(Fatal::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Fatal::Runtime)?;
        let stopped = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        compose::compose(prepared).await?.run(stopped).await
    });
    // What still waits for a disk that hangs was acknowledged to nobody.
    runtime.shutdown_timeout(LAST_WRITES);
    ended
}

fn log_to_stderr(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MUSTER_LOG")
        .unwrap_or_else(|_| "info,openraft=off,quinn=warn,mdns_sd=error,foca=error".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => {
            log.with_target(false).with_ansi(false).finish().with(filter_fn(is_harmless)).init();
        }
        LogFormat::Json => log.json().finish().with(filter_fn(is_harmless)).init(),
    }
}

/// Whatever `MUSTER_LOG` asks for: sled logs what it stores, byte for byte, and the authorities'
/// keys are in the Raft log.
fn is_harmless(what: &Metadata<'_>) -> bool {
    !what.target().starts_with("sled") || *what.level() <= Level::WARN
}
