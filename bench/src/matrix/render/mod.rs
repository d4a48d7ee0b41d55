//! What people read: the page and the tables. One self-contained file, drawings included; nothing is
//! fetched when it is opened.

mod chart;
pub mod figure;
mod markdown;
mod page;
#[cfg(test)]
pub mod sample;
mod verdicts;
mod words;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args as ClapArgs;

use super::document::Matrix;

/// Options.
#[derive(ClapArgs)]
pub struct Args {
    /// A matrix.json
    matrix: PathBuf,
    /// Write the page here
    #[arg(long)]
    html: Option<PathBuf>,
    /// Print the tables of the README
    #[arg(long)]
    markdown: bool,
}

/// Renders a document that was measured before.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let matrix = Matrix::read(&args.matrix)?;
    if let Some(path) = &args.html {
        write_page(path, &matrix)?;
    }
    if args.markdown || args.html.is_none() {
        print_markdown(&matrix)?;
    }
    Ok(())
}

/// Writes the page.
pub fn write_page(path: &Path, matrix: &Matrix) -> anyhow::Result<()> {
    fs::write(path, page::page(matrix)).with_context(|| format!("cannot write {}", path.display()))
}

/// Prints the tables.
pub fn print_markdown(matrix: &Matrix) -> anyhow::Result<()> {
    std::io::stdout()
        .lock()
        .write_all(markdown::tables(matrix).as_bytes())
        .context("cannot print the tables")
}
