//! The section that says how weft stands: every target, met or missed, with its figure.

use std::fmt::Write;

use super::chart::{Gauge, gauge};
use super::figure::{digits, escaped};
use crate::matrix::target::Measure;
use crate::matrix::verdict::{State, Verdict};

/// The states in the order of the tiles.
const STATES: [State; 5] = [
    State::Aim,
    State::Must,
    State::Missed,
    State::NotResolved,
    State::NoData,
];

/// Tiles with how many, then a line for each.
pub fn section(verdicts: &[Verdict]) -> String {
    let mut html = String::from("<h2>Against the targets</h2>\n<div class=\"tiles\">");
    for state in STATES {
        let count = verdicts.iter().filter(|v| v.state == state).count();
        let _ = write!(
            html,
            "<div class=\"tile {}\"><b>{count}</b> {}</div>",
            class(state),
            state.title()
        );
    }
    html.push_str("</div>\n<p class=\"legend\">Right is better. <span class=\"mark must\"></span> the \
        least that is acceptable (must), <span class=\"mark aim\"></span> what weft is built for (aim), \
        the dot weft against the best of the named peers by their medians, the band single rounds. The \
        scale ends at eight times better and worse than the must.</p>\n");
    for verdict in verdicts {
        html.push_str(&line(verdict));
    }
    html
}

fn line(verdict: &Verdict) -> String {
    let wire = verdict
        .wire_mtu
        .map_or(String::new(), |mtu| format!(", wire {mtu}"));
    let against = match &verdict.peer {
        Some(peer) => format!("against {peer}"),
        None if verdict.target.peers.is_empty() => String::new(),
        None => format!("no result of {}", verdict.target.peers.join(", ")),
    };
    format!(
        "<div class=\"verdict {class}\"><div class=\"what\"><b>{test}</b> {placement}{wire}: {measure} \
         <span class=\"peer\">{against}</span></div>{drawing}<div class=\"figure\">{figure} \
         <span class=\"bounds\">must {must}, aim {aim}</span> <span class=\"badge\">{state}</span></div></div>\n",
        class = class(verdict.state),
        test = verdict.test.name(),
        placement = verdict.placement,
        measure = verdict.target.measure.title(),
        against = escaped(&against),
        drawing = drawing(verdict),
        figure = verdict
            .figure
            .map_or("–".to_owned(), |f| number(verdict.target.measure, f)),
        must = number(verdict.target.measure, verdict.target.must),
        aim = number(verdict.target.measure, verdict.target.aim),
        state = verdict.state.title(),
    )
}

/// A figure or a bound in words.
pub fn number(measure: Measure, figure: f64) -> String {
    match measure {
        Measure::AddedP50Us => format!("{} µs", digits(figure)),
        Measure::Cores => format!("{} %", digits(figure * 100.0)),
        _ => format!("{figure:.2}×"),
    }
}

fn drawing(verdict: &Verdict) -> String {
    let Some(figure) = verdict.figure else {
        return "<svg viewBox=\"0 0 360 24\"></svg>".to_owned();
    };
    let target = verdict.target;
    let power = |figure: f64| {
        if target.measure.more_is_better() {
            (figure / target.must).log2()
        } else if figure <= 0.0 {
            f64::INFINITY
        } else {
            (target.must / figure).log2()
        }
    };
    gauge(
        &format!("{} {}", verdict.test.name(), verdict.state.title()),
        &Gauge {
            figure: power(figure),
            aim: power(target.aim),
            spread: verdict.spread.map(|(low, high)| (power(low), power(high))),
            class: class(verdict.state),
        },
    )
}

fn class(state: State) -> &'static str {
    match state {
        State::Aim => "aimed",
        State::Must => "reached",
        State::Missed => "missed",
        State::NotResolved => "open",
        State::NoData => "none",
    }
}
