//! The order of the runs. Datapaths take turns, run by run (A B C, A B C, …), so that whatever else
//! the machine does hits all of them alike; a test's rounds are spread over the whole time.

use std::time::Duration;

use super::kind::Test;
use super::lane::{Lane, Placement};

/// Peers a quick look keeps across nodes: what the targets compare with, and one without a tunnel.
const QUICK_ACROSS: [&str; 4] = ["weft", "kernel-vxlan", "kernel-ebpf", "kernel-nftables"];

/// How long and how often each test runs.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Name of this pace in the results.
    pub mode: &'static str,
    /// Runs of every test.
    pub rounds: u32,
    /// Runs of the pinned latency test, which is short and whose target is in microseconds.
    pub pinned_rounds: u32,
    /// Measured seconds of an iperf3 run.
    pub bulk_seconds: u32,
    /// Seconds iperf3 leaves out at the start of a run, for slow start.
    pub omit_seconds: u32,
    /// Length of a latency run.
    pub small: Duration,
    /// Length of one rate of the packet sweep.
    pub trial: Duration,
    /// Length of the idle test, against a clock of 10 ms.
    pub idle: Duration,
}

impl Pace {
    /// The published benchmark takes 60 s and 3 runs a test; 1 s behind the second it leaves out is
    /// what fits 176 cells three times into 17 minutes.
    pub const FULL: Self = Self {
        mode: "full",
        rounds: 3,
        pinned_rounds: 9,
        bulk_seconds: 1,
        omit_seconds: 1,
        small: Duration::from_millis(800),
        trial: Duration::from_millis(400),
        idle: Duration::from_secs(12),
    };
    /// One round, no time for slow start to pass: shows that everything runs, not how fast.
    pub const QUICK: Self = Self {
        mode: "quick",
        rounds: 1,
        pinned_rounds: 3,
        bulk_seconds: 1,
        omit_seconds: 0,
        small: Duration::from_millis(250),
        trial: Duration::from_millis(100),
        idle: Duration::from_secs(6),
    };

    /// How many times `test` runs in each of its lanes.
    fn rounds_of(&self, test: Test) -> u32 {
        match test {
            Test::RrPinned => self.pinned_rounds,
            Test::Idle => 1,
            _ => self.rounds,
        }
    }

    /// How long one run of `test` takes, its setting up included; measured, to say what is left.
    pub fn seconds(&self, test: Test) -> f64 {
        match test {
            Test::Rr | Test::RrPinned | Test::Crr => self.small.as_secs_f64() + 0.1,
            Test::Pps64 => 12.0 * (self.trial.as_secs_f64() + 0.1),
            Test::Idle => self.idle.as_secs_f64(),
            _ => f64::from(self.bulk_seconds + self.omit_seconds) + 0.4,
        }
    }
}

/// One run to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which round of its test, from 0.
    pub round: u32,
    /// What is measured.
    pub test: Test,
    /// Where: an index into the lanes.
    pub lane: usize,
}

/// What of the matrix is wanted.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Only these tests; all of them if empty.
    pub tests: Vec<Test>,
    /// Only these datapaths; all of them if empty.
    pub datapaths: Vec<String>,
    /// Leave out what a quick look can do without.
    pub quick: bool,
}

impl Choice {
    fn wants(&self, lane: &Lane, test: Test) -> bool {
        let chosen = (self.tests.is_empty() || self.tests.contains(&test))
            && (self.datapaths.is_empty() || self.datapaths.contains(&lane.datapath));
        chosen && (!self.quick || essential(lane, test))
    }
}

fn essential(lane: &Lane, test: Test) -> bool {
    (lane.placement == Placement::SameNode && lane.datapath != "direct")
        || matches!(test, Test::ExtTx | Test::ExtRx)
        || QUICK_ACROSS.contains(&lane.datapath.as_str())
}

/// All runs, in order.
pub fn plan(lanes: &[Lane], pace: &Pace, choice: &Choice) -> Vec<Step> {
    let last = pace.rounds.max(pace.pinned_rounds);
    let mut steps = Vec::new();
    for round in 0..last {
        for test in Test::ALL {
            if round >= pace.rounds_of(test) {
                continue;
            }
            // Lanes that are compared with each other follow each other.
            let mut turn: Vec<usize> = (0..lanes.len())
                .filter(|&lane| lanes[lane].tests.contains(&test))
                .filter(|&lane| choice.wants(&lanes[lane], test))
                .collect();
            turn.sort_by_key(|&lane| (lanes[lane].placement, lanes[lane].wire_mtu, lane));
            steps.extend(turn.into_iter().map(|lane| Step { round, test, lane }));
        }
    }
    steps
}

/// How long `steps` take by experience.
pub fn estimate(steps: &[Step], pace: &Pace) -> Duration {
    Duration::from_secs_f64(steps.iter().map(|step| pace.seconds(step.test)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(datapath: &str, placement: Placement, tests: &[Test]) -> Lane {
        Lane {
            datapath: datapath.to_owned(),
            placement,
            wire_mtu: (placement == Placement::CrossNode).then_some(1500),
            client: "c".to_owned(),
            server: "s".to_owned(),
            address: [10, 0, 0, 1].into(),
            port: None,
            tests: tests.to_vec(),
            processes: Vec::new(),
        }
    }

    #[test]
    fn datapaths_take_turns_in_every_round() {
        let lanes = [
            lane("a", Placement::SameNode, &[Test::Dts]),
            lane("x", Placement::CrossNode, &[Test::Dts]),
            lane("b", Placement::SameNode, &[Test::Dts]),
        ];
        let steps = plan(&lanes, &Pace::FULL, &Choice::default());
        let order: Vec<usize> = steps.iter().map(|step| step.lane).collect();
        assert_eq!(order, [0, 2, 1, 0, 2, 1, 0, 2, 1]);
        assert_eq!(
            steps.iter().map(|step| step.round).collect::<Vec<_>>(),
            [0, 0, 0, 1, 1, 1, 2, 2, 2]
        );
    }

    #[test]
    fn pinned_latency_runs_at_least_nine_times_and_idle_once() {
        let lanes = [lane(
            "weft",
            Placement::SameNode,
            &[Test::RrPinned, Test::Idle],
        )];
        let steps = plan(&lanes, &Pace::FULL, &Choice::default());
        let count = |test| steps.iter().filter(|step| step.test == test).count();
        assert!(count(Test::RrPinned) >= 9);
        assert_eq!(count(Test::Idle), 1);
    }

    #[test]
    fn quick_keeps_weft_and_what_its_targets_name() {
        let lanes = [
            lane("weft", Placement::CrossNode, &[Test::Dts]),
            lane("kernel-vxlan", Placement::CrossNode, &[Test::Dts]),
            lane("kernel-vxlan+offloads", Placement::CrossNode, &[Test::Dts]),
            lane("kernel-bridge", Placement::CrossNode, &[Test::ExtTx]),
        ];
        let quick = Choice {
            quick: true,
            ..Choice::default()
        };
        let kept: Vec<usize> = plan(&lanes, &Pace::QUICK, &quick)
            .iter()
            .map(|step| step.lane)
            .collect();
        assert_eq!(kept, [0, 1, 3]);
    }
}
