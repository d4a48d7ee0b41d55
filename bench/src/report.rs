//! Results on standard output: one JSON document per run.

use std::io::Write;

use serde::Serialize;

/// Prints `result` as one line of JSON.
pub fn print(result: &impl Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, result)?;
    writeln!(out)?;
    Ok(())
}
