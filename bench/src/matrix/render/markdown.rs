//! The tables of the README: medians, with the least and the greatest run.

use std::fmt::Write;

use super::figure::{self, digits};
use super::verdicts::number;
use crate::matrix::document::{Matrix, Outcome};
use crate::matrix::kind::Test;
use crate::matrix::lane::Placement;
use crate::matrix::verdict::judge;

/// A table per placement and wire, then the targets.
pub fn tables(matrix: &Matrix) -> String {
    let mut groups: Vec<(Placement, Option<u32>)> = matrix
        .results
        .iter()
        .map(|outcome| (outcome.placement, outcome.wire_mtu))
        .collect();
    groups.sort_unstable();
    groups.dedup();
    let mut text = String::new();
    for (placement, wire) in groups {
        text.push_str(&table(matrix, placement, wire));
        text.push('\n');
    }
    text + &targets(matrix)
}

fn table(matrix: &Matrix, placement: Placement, wire: Option<u32>) -> String {
    let here: Vec<&Outcome> = matrix
        .results
        .iter()
        .filter(|outcome| (outcome.placement, outcome.wire_mtu) == (placement, wire))
        .collect();
    let tests: Vec<Test> = Test::ALL
        .into_iter()
        .filter(|test| here.iter().any(|outcome| outcome.test == *test))
        .collect();
    let mut datapaths: Vec<&str> = Vec::new();
    for outcome in &here {
        if !datapaths.contains(&outcome.datapath.as_str()) {
            datapaths.push(&outcome.datapath);
        }
    }
    let wire = wire.map_or(String::new(), |mtu| format!(", wire {mtu}"));
    let mut text = format!("| {placement}{wire} |");
    for test in &tests {
        let _ = write!(text, " {} {} |", test.name(), column_unit(*test));
    }
    text += &format!("\n|---|{}\n", "---|".repeat(tests.len()));
    for datapath in datapaths {
        let _ = write!(text, "| {datapath} |");
        for test in &tests {
            let outcome = here
                .iter()
                .find(|outcome| outcome.datapath == datapath && outcome.test == *test);
            let _ = write!(text, " {} |", outcome.map_or(String::new(), |o| cell(o)));
        }
        text.push('\n');
    }
    text
}

fn column_unit(test: Test) -> &'static str {
    match test {
        Test::Rr | Test::RrPinned => "p50 (p99) µs",
        _ => figure::unit(test),
    }
}

fn cell(outcome: &Outcome) -> String {
    if let (Test::Rr | Test::RrPinned, Some(latency)) = (outcome.test, outcome.latency_us) {
        return format!("{} ({})", digits(latency.p50), digits(latency.p99));
    }
    match (outcome.median, outcome.spread()) {
        (Some(median), Some((least, greatest))) if outcome.runs.len() > 1 => format!(
            "{} ({}-{})",
            figure::bare(outcome.test, median),
            figure::bare(outcome.test, least),
            figure::bare(outcome.test, greatest)
        ),
        (Some(median), _) => figure::bare(outcome.test, median),
        (None, _) => "failed".to_owned(),
    }
}

fn targets(matrix: &Matrix) -> String {
    let mut text =
        String::from("| target | against | must | aim | measured | |\n|---|---|---|---|---|---|\n");
    for verdict in judge(matrix) {
        let measure = verdict.target.measure;
        let wire = verdict
            .wire_mtu
            .map_or(String::new(), |mtu| format!(" {mtu}"));
        let _ = writeln!(
            text,
            "| {} {}{wire}, {} | {} | {} | {} | {} | {} |",
            verdict.test.name(),
            verdict.placement,
            measure.title(),
            verdict.peer.as_deref().unwrap_or(""),
            number(measure, verdict.target.must),
            number(measure, verdict.target.aim),
            verdict
                .figure
                .map_or("–".to_owned(), |f| number(measure, f)),
            verdict.state.title(),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::render::sample;

    #[test]
    fn a_table_for_each_placement_and_wire() {
        let text = tables(&sample::matrix());
        assert!(
            text.contains("| same-node | dts Gb/s | dtm Gb/s |"),
            "{text}"
        );
        assert!(text.contains("| weft | 18.0 (17.0-19.0) |"), "{text}");
        assert!(text.contains("| cross-node, wire 1500 |"), "{text}");
        assert!(text.contains("| failed |"), "{text}");
    }

    #[test]
    fn every_row_has_as_many_cells_as_its_head() {
        for table in tables(&sample::matrix()).split("\n\n") {
            let columns: Vec<usize> = table
                .lines()
                .map(|line| line.matches('|').count())
                .collect();
            assert!(columns.iter().all(|count| *count == columns[0]), "{table}");
        }
    }
}
