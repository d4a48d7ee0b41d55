//! Two matrices beside each other: which cells can be trusted to repeat.

use std::io::Write;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::document::Matrix;
use super::render::figure;

/// Medians further apart than this, in percent, do not repeat.
const UNSTABLE_PCT: f64 = 10.0;

/// Options.
#[derive(ClapArgs)]
pub struct Args {
    /// A matrix.json
    before: PathBuf,
    /// Another one
    after: PathBuf,
}

/// One result in both matrices.
#[derive(Debug, PartialEq)]
struct Pair {
    name: String,
    before: String,
    after: String,
    /// By how much the second median differs, in percent of the first.
    change_pct: f64,
}

/// Prints every result both have, and marks what differs by more than 10 %.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let (before, after) = (Matrix::read(&args.before)?, Matrix::read(&args.after)?);
    let pairs = pairs(&before, &after);
    let mut out = std::io::stdout().lock();
    writeln!(out, "| cell | before | after | change | |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    for pair in &pairs {
        writeln!(
            out,
            "| {} | {} | {} | {:+.1} % | {} |",
            pair.name,
            pair.before,
            pair.after,
            pair.change_pct,
            if pair.unstable() { "unstable" } else { "" }
        )?;
    }
    let unstable = pairs.iter().filter(|pair| pair.unstable()).count();
    writeln!(out, "\n{unstable} of {} unstable", pairs.len())?;
    Ok(())
}

impl Pair {
    fn unstable(&self) -> bool {
        self.change_pct.abs() > UNSTABLE_PCT
    }
}

fn pairs(before: &Matrix, after: &Matrix) -> Vec<Pair> {
    let pair = |old: &super::document::Outcome| {
        let new = after.find(&old.datapath, old.cell())?;
        let (first, second) = (old.median?, new.median?);
        let wire = old.wire_mtu.map_or(String::new(), |mtu| format!(" {mtu}"));
        Some(Pair {
            name: format!(
                "{} {}{wire} {}",
                old.test.name(),
                old.placement,
                old.datapath
            ),
            before: figure::with_unit(old.test, first),
            after: figure::with_unit(old.test, second),
            change_pct: (second / first - 1.0) * 100.0,
        })
    };
    before.results.iter().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::render::sample::matrix;

    #[test]
    fn marks_what_moved_by_more_than_a_tenth() {
        let (before, mut after) = (matrix(), matrix());
        let moved = after.results[0].median.unwrap() * 1.2;
        after.results[0].median = Some(moved);
        let pairs = pairs(&before, &after);
        assert!(pairs[0].unstable());
        assert!(pairs[1..].iter().all(|pair| !pair.unstable()));
        assert!((pairs[0].change_pct - 20.0).abs() < 1e-9);
    }

    #[test]
    fn leaves_out_what_has_no_median() {
        let matrix = matrix();
        let failed = matrix.results.iter().filter(|r| r.median.is_none()).count();
        assert!(failed > 0);
        assert_eq!(pairs(&matrix, &matrix).len(), matrix.results.len() - failed);
    }
}
