//! The `musterd` program: parses, checks, composes, runs, and maps each failure to an exit code.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use musterd::args::{Args, LogFormat};
use musterd::compose;
use musterd::core_dump;
use musterd::fatal::Fatal;
use musterd::prepare::{self, NotReady};
use musterd::stderr::Stderr;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Time limit for the writer threads to finish at exit.
const WRITER_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    // Files of this process and its children are for this user only.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let stderr = match Stderr::start() {
        Ok(stderr) => stderr,
        // Without a thread there is no node, and nothing that could report it.
        Err(error) => return Fatal::Runtime(error).exit_code(),
    };
    let exit_code = run(&stderr);
    stderr.flush();
    exit_code
}

fn run(stderr: &Stderr) -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return report_usage(&error, stderr),
    };
    let format = args.log_format;
    log_to(stderr, format);
    log_panics();
    if let Err(error) = core_dump::disable() {
        // Not fatal: a node without this protection is better than no node.
        tracing::warn!(%error, "cannot disable core dumps; a crash may write keys to disk");
    }
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            report(&fatal, format, stderr);
            fatal.exit_code()
        }
    }
}

/// Prints a wrong command line on standard error, help and version on standard output.
fn report_usage(error: &clap::Error, stderr: &Stderr) -> ExitCode {
    if error.use_stderr() {
        stderr.print(error.render().to_string().trim_end());
    } else {
        // A closed standard output cannot be reported anywhere.
        error.print().ok();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(u8::MAX))
}

/// Prints a configuration or machine error for the operator; logs any other error.
fn report(fatal: &Fatal, format: LogFormat, stderr: &Stderr) {
    if fatal.is_config_error() && format == LogFormat::Text {
        stderr.print(&format!("musterd: {}", fatal.operator_message()));
    } else {
        tracing::error!(error = muster_types::error::chain(fatal), "musterd exits");
    }
}

/// Logs panics. The standard library's hook writes to standard error directly, so it would wait for
/// a reader that does not read.
fn log_panics() {
    panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("no message");
        let location = info.location().map(ToString::to_string);
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
        tracing::error!(
            message = "thread panicked",
            panic = message,
            location,
            thread = std::thread::current().name(),
            backtrace = backtrace.map(|backtrace| backtrace.to_string()),
        );
    }));
}

fn start(args: &Args) -> Result<(), Fatal> {
    let checked = prepare::check(args.clone());
    if args.check {
        checked.map_err(NotReady::into_fatal)?.log_warnings();
        tracing::info!("configuration and machine checks passed");
        return Ok(());
    }
    // Without a runtime: a refused start opens nothing.
    if let Err(NotReady::Fatal(fatal)) = checked {
        return Err(fatal);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()
        .map_err(Fatal::Runtime)?;
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(Fatal::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Fatal::Runtime)?;
        let stopped = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        tokio::pin!(stopped);
        let node = tokio::select! {
            biased;
            () = &mut stopped => return Ok(()),
            composed = async {
                let prepared = prepare::wait(args, checked).await?.open()?;
                compose::compose(prepared).await
            } => composed?,
        };
        node.run(stopped).await
    });
    // Writes that still wait for a hung disk were never acknowledged.
    runtime.shutdown_timeout(WRITER_SHUTDOWN_TIMEOUT);
    result
}

fn log_to(stderr: &Stderr, format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MUSTER_LOG")
        .unwrap_or_else(|_| "info,openraft=off,quinn=warn,mdns_sd=error,foca=error".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr.clone());
    // It would report its own errors with `eprintln!`.
    let log = log.log_internal_errors(false);
    match format {
        LogFormat::Text => {
            log.with_target(false).with_ansi(false).finish().with(filter_fn(is_loggable)).init();
        }
        LogFormat::Json => log.json().finish().with(filter_fn(is_loggable)).init(),
    }
}

/// Excludes sled's verbose records, even if `MUSTER_LOG` asks for them. sled logs the bytes that it
/// stores, and the Raft log contains the authorities' keys.
fn is_loggable(what: &Metadata<'_>) -> bool {
    !what.target().starts_with("sled") || *what.level() <= Level::WARN
}
