//! `matrix.json`: what was measured, where and how. Other tools read it: fields are only ever added.

use std::path::Path;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::exchange::Latency;
use super::kind::Test;
use super::lane::{Lane, Placement, Skipped};
use super::machine::Host;
use super::stats::{median, spread};

/// Version of the layout.
const SCHEMA: u32 = 1;

/// The whole document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Matrix {
    /// Version of the layout.
    pub schema: u32,
    /// The machine.
    pub host: Host,
    /// How it was measured.
    #[serde(default)]
    pub method: Method,
    /// One per datapath, placement, wire and test.
    pub results: Vec<Outcome>,
    /// Datapaths that could not be set up.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
}

/// How it was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Method {
    /// `full` or `quick`.
    pub mode: String,
    /// Runs of every test.
    pub rounds: u32,
    /// Measured seconds of a throughput run.
    pub seconds: u32,
    /// Seconds before them that do not count.
    pub omitted_seconds: u32,
    /// Congestion control of TCP streams; empty where it was the machine's own.
    #[serde(default)]
    pub congestion_control: String,
    /// How long everything took.
    pub took_seconds: f64,
    /// Cores that were in use before the first run, by others.
    #[serde(default)]
    pub background_cores: f64,
}

/// One run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// The result, in the test's unit.
    pub value: f64,
    /// Loss in percent, for UDP.
    pub lost_pct: Option<f64>,
    /// Segments sent again, for TCP.
    pub retransmits: Option<u64>,
    /// Cores the whole machine used.
    pub cpu_cores: f64,
    /// Memory of the datapath's processes.
    pub memory_bytes: Option<u64>,
    /// Round-trip times.
    pub latency_us: Option<Latency>,
    /// The part of them a new connection took.
    pub connect_us: Option<Latency>,
    /// What arrives at twice the rate without loss.
    pub overload_pps: Option<f64>,
    /// The softirq part of an idle machine.
    pub softirq_cores: Option<f64>,
}

/// All runs of one test in one lane.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// What forwarded.
    pub datapath: String,
    /// Where the ends were.
    pub placement: Placement,
    /// MTU of the wire.
    pub wire_mtu: Option<u32>,
    /// What was measured.
    pub test: Test,
    /// Unit of `runs` and `median`.
    pub unit: String,
    /// The runs that worked.
    pub runs: Vec<f64>,
    /// Their median; nothing if none worked.
    pub median: Option<f64>,
    /// Medians over the runs, as all that follows.
    pub lost_pct: Option<f64>,
    /// Segments sent again.
    pub retransmits: Option<f64>,
    /// Cores of the whole machine, every mode but idle and iowait.
    pub cpu_cores: Option<f64>,
    /// Memory of the datapath's processes.
    pub memory_bytes: Option<u64>,
    /// Round of each of `runs`: runs of the same round were made one after another.
    #[serde(default)]
    pub rounds: Vec<u32>,
    /// Cores per Gbit/s, for throughput.
    #[serde(default)]
    pub cpu_cores_per_gbit: Option<f64>,
    /// Round-trip times in microseconds.
    #[serde(default)]
    pub latency_us: Option<Latency>,
    /// Those of each of `runs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latency_us_runs: Vec<Latency>,
    /// The part of them a new connection took, where each exchange had its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_us: Option<Latency>,
    /// What arrives at twice the rate without loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overload_pps: Option<f64>,
    /// The softirq part of `median` of an idle machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub softirq_cores: Option<f64>,
    /// Why runs failed.
    #[serde(default)]
    pub failures: Vec<String>,
}

impl Outcome {
    /// Puts the runs of `test` in `lane` together: `(round, result or the reason why not)`.
    pub fn of(lane: &Lane, test: Test, runs: &[(u32, Result<Sample, String>)]) -> Self {
        let worked: Vec<(u32, Sample)> = runs
            .iter()
            .filter_map(|(round, run)| Some((*round, *run.as_ref().ok()?)))
            .collect();
        let middle = |field: fn(&Sample) -> Option<f64>| {
            let all: Option<Vec<f64>> = worked.iter().map(|(_, sample)| field(sample)).collect();
            all.and_then(|values| median(&values))
        };
        let value = middle(|sample| Some(sample.value));
        let cpu_cores = middle(|sample| Some(sample.cpu_cores));
        let latencies: Vec<Latency> = worked.iter().filter_map(|(_, s)| s.latency_us).collect();
        let connects: Vec<Latency> = worked.iter().filter_map(|(_, s)| s.connect_us).collect();
        Self {
            datapath: lane.datapath.clone(),
            placement: lane.placement,
            wire_mtu: lane.wire_mtu,
            test,
            unit: test.unit().to_owned(),
            runs: worked.iter().map(|(_, sample)| sample.value).collect(),
            median: value,
            lost_pct: middle(|sample| sample.lost_pct),
            retransmits: middle(|sample| sample.retransmits.map(|count| count as f64)),
            cpu_cores,
            memory_bytes: middle(|sample| sample.memory_bytes.map(|b| b as f64)).map(|b| b as u64),
            rounds: worked.iter().map(|(round, _)| *round).collect(),
            cpu_cores_per_gbit: match (test.bulk(), value, cpu_cores) {
                (Some(_), Some(bits), Some(cores)) => Some(cores / (bits / 1e9)),
                _ => None,
            },
            latency_us: latency_median(&latencies),
            latency_us_runs: latencies,
            connect_us: latency_median(&connects),
            overload_pps: middle(|sample| sample.overload_pps),
            softirq_cores: middle(|sample| sample.softirq_cores),
            failures: runs
                .iter()
                .filter_map(|(_, run)| run.as_ref().err().cloned())
                .collect(),
        }
    }

    /// Least and greatest run.
    pub fn spread(&self) -> Option<(f64, f64)> {
        spread(&self.runs)
    }

    /// The cell it belongs to: what datapaths are compared in.
    pub fn cell(&self) -> (Placement, Option<u32>, Test) {
        (self.placement, self.wire_mtu, self.test)
    }
}

fn latency_median(runs: &[Latency]) -> Option<Latency> {
    let middle = |field: fn(&Latency) -> f64| median(&runs.iter().map(field).collect::<Vec<_>>());
    Some(Latency {
        p50: middle(|run| run.p50)?,
        p99: middle(|run| run.p99)?,
        p999: middle(|run| run.p999)?,
    })
}

impl Matrix {
    /// A document of this layout.
    pub fn new(host: Host, method: Method, results: Vec<Outcome>, skipped: Vec<Skipped>) -> Self {
        Self {
            schema: SCHEMA,
            host,
            method,
            results,
            skipped,
        }
    }

    /// Reads a document.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let matrix: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is no benchmark matrix", path.display()))?;
        ensure!(
            matrix.schema == SCHEMA,
            "{} has layout {}, this program reads {SCHEMA}",
            path.display(),
            matrix.schema
        );
        Ok(matrix)
    }

    /// The result of one datapath in one cell.
    pub fn find(&self, datapath: &str, cell: (Placement, Option<u32>, Test)) -> Option<&Outcome> {
        self.results
            .iter()
            .find(|outcome| outcome.datapath == datapath && outcome.cell() == cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane() -> Lane {
        Lane {
            datapath: "weft".to_owned(),
            placement: Placement::CrossNode,
            wire_mtu: Some(9000),
            client: String::new(),
            server: String::new(),
            address: [10, 0, 0, 1].into(),
            port: None,
            tests: Vec::new(),
            processes: Vec::new(),
        }
    }

    fn run(value: f64) -> Result<Sample, String> {
        Ok(Sample {
            value,
            cpu_cores: 1.5,
            retransmits: Some(2),
            ..Sample::default()
        })
    }

    #[test]
    fn has_every_field_of_the_layout() {
        let outcome = Outcome::of(
            &lane(),
            Test::Dts,
            &[(0, run(3e9)), (1, run(1e9)), (2, run(2e9))],
        );
        let json = serde_json::to_value(outcome).unwrap();
        assert_eq!(json["datapath"], "weft");
        assert_eq!(json["placement"], "cross-node");
        assert_eq!(json["wire_mtu"], 9000);
        assert_eq!(json["test"], "dts");
        assert_eq!(json["unit"], "bit/s");
        assert_eq!(json["runs"], serde_json::json!([3e9, 1e9, 2e9]));
        assert_eq!(json["median"], 2e9);
        assert_eq!(json["lost_pct"], serde_json::Value::Null);
        assert_eq!(json["retransmits"], 2.0);
        assert_eq!(json["cpu_cores"], 1.5);
        assert_eq!(json["memory_bytes"], serde_json::Value::Null);
        assert_eq!(json["cpu_cores_per_gbit"], 0.75);
    }

    #[test]
    fn a_failed_run_is_shown_and_is_not_zero() {
        let failed = Err("iperf3: no route".to_owned());
        let outcome = Outcome::of(&lane(), Test::Dts, &[(0, run(3e9)), (1, failed.clone())]);
        assert_eq!((outcome.runs, outcome.rounds), (vec![3e9], vec![0]));
        assert_eq!(outcome.failures, ["iperf3: no route"]);
        let outcome = Outcome::of(&lane(), Test::Dts, &[(0, failed)]);
        assert_eq!((outcome.median, outcome.cpu_cores), (None, None));
    }

    #[test]
    fn what_is_written_can_be_read() {
        let outcome = Outcome::of(&lane(), Test::Dts, &[(0, run(3e9))]);
        let matrix = Matrix::new(
            Host::default(),
            Method::default(),
            vec![outcome],
            Vec::new(),
        );
        let text = serde_json::to_string(&matrix).unwrap();
        let again: Matrix = serde_json::from_str(&text).unwrap();
        assert_eq!(again.schema, 1);
        assert_eq!(again.results[0].median, Some(3e9));
    }

    #[test]
    fn reads_documents_with_the_first_fields_only() {
        let text = r#"{"schema": 1, "host": {"kernel": "6.18", "cpu": "x", "cores": 2, "memory_bytes": 1,
            "iperf3": "", "started": ""}, "results": [{"datapath": "weft", "placement": "same-node",
            "wire_mtu": null, "test": "rr", "unit": "transactions/s", "runs": [1], "median": 1,
            "lost_pct": null, "retransmits": null, "cpu_cores": 1, "memory_bytes": null}]}"#;
        let matrix: Matrix = serde_json::from_str(text).unwrap();
        let cell = (Placement::SameNode, None, Test::Rr);
        assert!(matrix.find("weft", cell).is_some());
        assert!(matrix.find("direct", cell).is_none());
    }
}
