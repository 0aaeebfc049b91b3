//! `musterd`: parse, check, compose, run, and one exit code for each kind of end.

use std::process::ExitCode;

use clap::Parser;
use musterd::args::{Args, LogFormat};
use musterd::compose;
use musterd::fatal::Fatal;
use musterd::prepare;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let args = Args::parse();
    log_to_stderr(args.log_format);
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            tracing::error!(error = musterd::fatal::chain(&fatal), "musterd ends");
            fatal.exit_code()
        }
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
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(Fatal::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Fatal::Runtime)?;
        let stopped = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        compose::compose(prepared).await?.run(stopped).await
    })
}

fn log_to_stderr(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MUSTER_LOG")
        .unwrap_or_else(|_| "info,openraft=error,quinn=warn,mdns_sd=error,foca=error".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_target(false).with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
}
