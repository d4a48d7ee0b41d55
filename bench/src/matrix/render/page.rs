//! The page: how weft stands, every cell, what failed, and what the numbers cannot say.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::chart::{Bar, bars, thin_bars};
use super::figure::{self, digits, escaped};
use super::{verdicts, words};
use crate::matrix::document::{Matrix, Outcome};
use crate::matrix::kind::Test;
use crate::matrix::lane::Placement;
use crate::matrix::verdict::judge;

/// Colours and layout; the theme follows the reader's.
const STYLE: &str = include_str!("page.css");

/// An idle machine uses less than this many cores; more shows in the results.
const BACKGROUND_MAX: f64 = 0.1;

/// The whole page.
pub fn page(matrix: &Matrix) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>weft: benchmark matrix</title>\n<style>{STYLE}</style></head><body>\n"
    );
    html.push_str(&head(matrix));
    html.push_str(&verdicts::section(&judge(matrix)));
    for (placement, wire) in groups(matrix) {
        html.push_str(&group(matrix, placement, wire));
    }
    html.push_str(&failures(matrix));
    for part in [words::WIRE, words::PEERS, words::METHOD] {
        html.push_str(part);
    }
    html.push_str("</body></html>\n");
    html
}

fn head(matrix: &Matrix) -> String {
    let (host, method) = (&matrix.host, &matrix.method);
    let mut html = format!(
        "<h1>weft: benchmark matrix</h1>\n<p class=\"host\">{} · {} cores · {} GiB · Linux {} · {} · {} · \
         rounds: {}, {} s each, {} min in all</p>\n",
        escaped(&host.cpu),
        host.cores,
        host.memory_bytes >> 30,
        escaped(&host.kernel),
        escaped(host.iperf3.split(" (").next().unwrap_or_default()),
        escaped(&host.started),
        method.rounds,
        method.seconds,
        digits(method.took_seconds / 60.0),
    );
    if method.mode == "quick" {
        html.push_str(
            "<p class=\"banner\">A quick run: one short round of everything. It shows that everything \
             runs; it has no spread, and its numbers are not for quoting.</p>\n",
        );
    }
    if method.background_cores > BACKGROUND_MAX {
        let _ = writeln!(
            html,
            "<p class=\"banner\">The machine was not idle: before the first run others used {} cores. \
             Expect these numbers not to repeat.</p>",
            digits(method.background_cores)
        );
    }
    html
}

/// Placements and wires, same node first.
fn groups(matrix: &Matrix) -> BTreeSet<(Placement, Option<u32>)> {
    let keys = matrix.results.iter();
    keys.map(|outcome| (outcome.placement, outcome.wire_mtu))
        .collect()
}

fn group(matrix: &Matrix, placement: Placement, wire: Option<u32>) -> String {
    let title = match (placement, wire) {
        (Placement::SameNode, _) => "Two pods of one node".to_owned(),
        (Placement::CrossNode, Some(mtu)) => format!("Across the wire, MTU {mtu}"),
        (Placement::CrossNode, None) => "Across the wire".to_owned(),
    };
    let mut html = format!("<h2>{title}</h2>\n<div class=\"cards\">\n");
    for test in Test::ALL {
        let cell = (placement, wire, test);
        let outcomes: Vec<&Outcome> = matrix
            .results
            .iter()
            .filter(|outcome| outcome.cell() == cell)
            .collect();
        if !outcomes.is_empty() {
            html.push_str(&card(&outcomes, test));
        }
    }
    html.push_str("</div>\n");
    html
}

fn card(outcomes: &[&Outcome], test: Test) -> String {
    let first = outcomes[0];
    let mut html = format!(
        "<section class=\"card\" data-cell=\"{}/{}/{}\"><h3>{} <code>{}</code></h3>\n",
        first.placement,
        figure::wire(first.wire_mtu),
        test.name(),
        test.title(),
        test.name(),
    );
    let rates: Vec<Bar> = outcomes.iter().map(|outcome| rate(outcome)).collect();
    html.push_str(&bars(test.title(), &rates));
    let cores: Vec<Bar> = outcomes
        .iter()
        .filter_map(|outcome| cores(outcome))
        .collect();
    if !cores.is_empty() {
        html.push_str("<h4>Cores per Gbit/s, less is better</h4>\n");
        html.push_str(&thin_bars("Cores per Gbit/s", &cores));
    }
    html.push_str("</section>\n");
    html
}

fn rate(outcome: &Outcome) -> Bar {
    let label = match outcome.median {
        Some(median) => figure::with_unit(outcome.test, median),
        None => "failed".to_owned(),
    };
    Bar {
        name: outcome.datapath.clone(),
        class: class(&outcome.datapath),
        value: outcome.median,
        spread: outcome.spread(),
        label,
        note: note(outcome),
    }
}

fn cores(outcome: &Outcome) -> Option<Bar> {
    let value = outcome.cpu_cores_per_gbit?;
    Some(Bar {
        name: outcome.datapath.clone(),
        class: class(&outcome.datapath),
        value: Some(value),
        label: digits(value),
        ..Bar::default()
    })
}

/// What else is to be known of a result, in one line.
fn note(outcome: &Outcome) -> String {
    let mut parts = Vec::new();
    if let Some(reason) = outcome.failures.first() {
        let all = outcome.failures.len() + outcome.runs.len();
        parts.push(format!(
            "{} of {all} runs failed: {reason}",
            outcome.failures.len()
        ));
    }
    if let Some(latency) = outcome.latency_us {
        parts.push(format!(
            "p50 {}, p99 {}, p99.9 {} µs",
            digits(latency.p50),
            digits(latency.p99),
            digits(latency.p999)
        ));
    }
    if let Some(connect) = outcome.connect_us {
        let (p50, p99) = (digits(connect.p50), digits(connect.p99));
        parts.push(format!("connected p50 {p50}, p99 {p99} µs"));
    }
    if let Some(packets) = outcome.overload_pps {
        parts.push(format!("{} kpps at twice the rate", digits(packets / 1e3)));
    }
    if let Some(lost) = outcome.lost_pct.filter(|lost| *lost >= 0.05) {
        parts.push(format!("{} % lost", digits(lost)));
    }
    if let Some(again) = outcome.retransmits.filter(|again| *again > 0.0) {
        parts.push(format!("{again:.0} retransmits"));
    }
    if let Some(cores) = outcome.cpu_cores {
        parts.push(format!("{} cores", digits(cores)));
    }
    if let Some(bytes) = outcome.memory_bytes {
        parts.push(format!("{} MiB", bytes >> 20));
    }
    parts.join(" · ")
}

/// What class of colour a datapath has.
fn class(datapath: &str) -> &'static str {
    match datapath {
        ours if ours.starts_with("weft") => "ours",
        "direct" => "bare",
        kernel if kernel.starts_with("kernel-") => "kernel",
        _ => "other",
    }
}

fn failures(matrix: &Matrix) -> String {
    let mut html = String::from("<h2>What did not run</h2>\n<ul>\n");
    for skipped in &matrix.skipped {
        let _ = writeln!(
            html,
            "<li><b>{}</b> {}: {}</li>",
            escaped(&skipped.datapath),
            escaped(&skipped.placement),
            escaped(&skipped.reason)
        );
    }
    let failed = matrix.results.iter().filter(|o| !o.failures.is_empty());
    for outcome in failed {
        let reasons: BTreeSet<&String> = outcome.failures.iter().collect();
        for reason in reasons {
            let _ = writeln!(
                html,
                "<li><b>{}</b> {} {} {}: {}</li>",
                escaped(&outcome.datapath),
                outcome.test.name(),
                outcome.placement,
                figure::wire(outcome.wire_mtu),
                escaped(reason)
            );
        }
    }
    if html.ends_with("<ul>\n") {
        html.push_str("<li>Everything ran.</li>\n");
    }
    html.push_str("</ul>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::render::sample;

    /// Headings, cells and bars of a page, in order.
    fn outline(html: &str) -> String {
        let marks = ["<h1>", "<h2>", "<h3>", "data-cell=\"", "data-datapath=\""];
        let mut lines = String::new();
        for line in html.lines() {
            for mark in marks {
                for (at, _) in line.match_indices(mark) {
                    let rest = &line[at + mark.len()..];
                    let end = rest.find(['<', '"']).unwrap_or(rest.len());
                    lines += &format!(
                        "{} {}\n",
                        mark.trim_matches(['<', '>', '"', '=']),
                        &rest[..end]
                    );
                }
            }
        }
        lines
    }

    #[test]
    fn the_page_has_its_outline() {
        let outline = outline(&page(&sample::matrix()));
        assert_eq!(
            outline,
            include_str!("../../../tests/sample/outline.txt"),
            "{outline}"
        );
    }

    #[test]
    fn a_failure_is_told_where_it_happened_and_once_more() {
        let html = page(&sample::matrix());
        assert!(html.matches("Connection refused").count() >= 2);
        assert!(html.contains("userspace switch did not start"));
    }

    #[test]
    fn a_busy_machine_is_said_aloud() {
        let mut matrix = sample::matrix();
        assert!(!page(&matrix).contains("was not idle"));
        matrix.method.background_cores = 1.25;
        assert!(page(&matrix).contains("others used 1.25 cores"));
    }

    #[test]
    fn nothing_is_fetched_and_nothing_runs() {
        let html = page(&sample::matrix());
        for forbidden in ["<script", "http://", "https://", "@import", "url("] {
            assert!(!html.contains(forbidden), "{forbidden}");
        }
    }
}
