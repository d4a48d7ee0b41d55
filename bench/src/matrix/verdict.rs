//! How weft stands against its targets.

use super::document::{Matrix, Outcome};
use super::kind::Test;
use super::lane::Placement;
use super::stats::spread;
use super::target::{Measure, TARGETS, Target};

/// Who is judged: the shipped default.
const OURS: &str = "weft";

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As good as it is meant to be.
    Aim,
    /// Good enough.
    Must,
    /// Not good enough.
    Missed,
    /// Runs of the same round do not agree on which side of the must weft is.
    NotResolved,
    /// One of the two was not measured.
    NoData,
}

impl State {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Aim => "aim reached",
            Self::Must => "must reached",
            Self::Missed => "missed",
            Self::NotResolved => "not resolved",
            Self::NoData => "no data",
        }
    }
}

/// A target applied to one cell.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The target.
    pub target: Target,
    /// Which of its tests.
    pub test: Test,
    /// Where.
    pub placement: Placement,
    /// On which wire.
    pub wire_mtu: Option<u32>,
    /// The best of the peers.
    pub peer: Option<String>,
    /// Ratio, difference or value of the medians.
    pub figure: Option<f64>,
    /// The same of single rounds: least and greatest.
    pub spread: Option<(f64, f64)>,
    /// How it stands.
    pub state: State,
}

/// All targets whose cells were wanted at all: a cell weft was never run in is no verdict.
pub fn judge(matrix: &Matrix) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for target in TARGETS {
        for (&test, &wire) in target
            .tests
            .iter()
            .flat_map(|test| target.wires.iter().map(move |wire| (test, wire)))
        {
            let cell = (target.placement, wire, test);
            if let Some(ours) = matrix.find(OURS, cell) {
                verdicts.push(verdict(matrix, *target, ours));
            }
        }
    }
    verdicts
}

fn verdict(matrix: &Matrix, target: Target, ours: &Outcome) -> Verdict {
    let peers = target.peers.iter();
    let peer = peers
        .filter_map(|name| matrix.find(name, ours.cell()))
        .filter(|peer| value(target.measure, peer).is_some())
        .max_by(|a, b| better(target.measure, a, b));
    let figure = match (value(target.measure, ours), peer) {
        (Some(value), None) if target.peers.is_empty() => Some(value),
        (Some(value_ours), Some(peer)) => {
            value(target.measure, peer).map(|other| relate(target.measure, value_ours, other))
        }
        _ => None,
    };
    let rounds = by_round(target.measure, ours, peer);
    let spread = spread(&rounds);
    Verdict {
        target,
        test: ours.test,
        placement: ours.placement,
        wire_mtu: ours.wire_mtu,
        peer: peer.map(|peer| peer.datapath.clone()),
        figure,
        spread,
        state: figure.map_or(State::NoData, |figure| state(&target, figure, spread)),
    }
}

/// What of a result counts.
fn value(measure: Measure, outcome: &Outcome) -> Option<f64> {
    match measure {
        Measure::Throughput | Measure::Cores => outcome.median,
        Measure::CpuPerGbit => outcome.cpu_cores_per_gbit,
        Measure::P50 | Measure::AddedP50Us => outcome.latency_us.map(|latency| latency.p50),
        Measure::P99 => outcome.latency_us.map(|latency| latency.p99),
    }
}

/// The same of each run, where runs have it.
fn values(measure: Measure, outcome: &Outcome) -> Vec<(u32, f64)> {
    let latency = |field: fn(&super::exchange::Latency) -> f64| {
        outcome.latency_us_runs.iter().map(field).collect()
    };
    let values: Vec<f64> = match measure {
        Measure::Throughput | Measure::Cores => outcome.runs.clone(),
        Measure::CpuPerGbit => Vec::new(),
        Measure::P50 | Measure::AddedP50Us => latency(|run| run.p50),
        Measure::P99 => latency(|run| run.p99),
    };
    outcome.rounds.iter().copied().zip(values).collect()
}

fn better(measure: Measure, a: &Outcome, b: &Outcome) -> std::cmp::Ordering {
    let order = value(measure, a)
        .unwrap_or_default()
        .total_cmp(&value(measure, b).unwrap_or_default());
    if measure.more_is_better() {
        order
    } else {
        order.reverse()
    }
}

fn relate(measure: Measure, ours: f64, other: f64) -> f64 {
    match measure {
        Measure::AddedP50Us => ours - other,
        _ => ours / other,
    }
}

/// The figure of every round both ran in. They ran one after another, so what disturbed the machine
/// for longer than that disturbed both.
fn by_round(measure: Measure, ours: &Outcome, peer: Option<&Outcome>) -> Vec<f64> {
    let own = values(measure, ours);
    let Some(peer) = peer else {
        return own.into_iter().map(|(_, value)| value).collect();
    };
    let other = values(measure, peer);
    own.iter()
        .filter_map(|(round, value)| {
            let (_, other) = other.iter().find(|(number, _)| number == round)?;
            Some(relate(measure, *value, *other))
        })
        .collect()
}

fn state(target: &Target, figure: f64, spread: Option<(f64, f64)>) -> State {
    let reaches = |figure: f64, bound: f64| {
        if target.measure.more_is_better() {
            figure >= bound
        } else {
            figure <= bound
        }
    };
    // Latency under an unpinned scheduler jumps by more than the targets ask for; a rate does not.
    let jumpy = matches!(target.measure, Measure::P50 | Measure::P99);
    let must = reaches(figure, target.must);
    match spread {
        Some((low, high)) if jumpy && low < target.must && high > target.must => State::NotResolved,
        _ if reaches(figure, target.aim) => State::Aim,
        _ if must => State::Must,
        _ => State::Missed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::render::sample::matrix;

    fn find(measure: Measure, test: Test, peers: usize) -> Verdict {
        let wanted = |verdict: &Verdict| {
            verdict.target.measure == measure
                && verdict.test == test
                && verdict.placement == Placement::SameNode
                && verdict.target.peers.len() == peers
        };
        judge(&matrix()).into_iter().find(wanted).unwrap()
    }

    #[test]
    fn compares_with_the_best_of_the_peers() {
        let verdict = find(Measure::Throughput, Test::Dts, 3);
        assert_eq!(verdict.peer.as_deref(), Some("kernel-ebpf"));
        assert_eq!(verdict.figure, Some(18.0 / 12.0));
        assert_eq!(verdict.state, State::Aim);
        assert_eq!(verdict.spread, Some((17.0 / 13.0, 19.0 / 11.0)));
    }

    #[test]
    fn a_loss_is_a_loss() {
        let verdict = find(Measure::Throughput, Test::Dus, 3);
        assert_eq!(verdict.state, State::Missed);
    }

    #[test]
    fn latency_that_jumps_across_the_bound_is_not_resolved() {
        assert_eq!(find(Measure::P50, Test::Rr, 3).state, State::NotResolved);
    }

    #[test]
    fn a_peer_that_failed_gives_no_verdict() {
        let verdict = find(Measure::Throughput, Test::Dtm, 1);
        assert_eq!((verdict.state, verdict.figure), (State::NoData, None));
    }
}
