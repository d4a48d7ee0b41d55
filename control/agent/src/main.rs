//! `weft-agent`: see `--help`.

use std::io::IsTerminal;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use weft_agent::options::{Args, LogFormat};
use weft_agent::run;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    start_log(args.log_format);
    // One thread is enough: the agent waits most of the time, and reads manifests on another.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run::run(&args))
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("WEFT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
