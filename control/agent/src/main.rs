//! `weft-agent`: see `--help`.

use std::process::ExitCode;

use clap::Parser;
use weft_agent::options::Args;
use weft_agent::run;

fn main() -> ExitCode {
    let args = Args::parse();
    args.log.run(|| {
        // One thread is enough: the agent waits most of the time, and reads manifests on another.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(run::run(&args))
    })
}
