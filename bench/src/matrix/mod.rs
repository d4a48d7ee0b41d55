//! The benchmark matrix: every test on every datapath, in turns, into one document and one page.
//!
//! A topology script sets the datapaths up side by side and describes them as lanes; this module
//! plans the runs, makes them, and says how weft stands against its targets.

pub mod compare;
mod document;
mod exchange;
mod iperf;
mod kind;
mod lane;
mod machine;
mod measure;
mod netns;
mod plan;
mod progress;
pub mod render;
mod stats;
mod sweep;
mod target;
mod verdict;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args as ClapArgs;

use document::{Matrix, Method, Outcome, Sample};
use kind::Test;
use lane::{Lane, Topology};
use machine::{Host, Meter};
use plan::{Choice, Pace, Step};
use progress::Progress;

/// How long to watch the machine before the first run.
const BACKGROUND: Duration = Duration::from_secs(2);

/// Options.
#[derive(ClapArgs)]
pub struct Args {
    /// What a topology script set up (perf-scripts/run/matrix.sh writes it and calls this)
    #[arg(long)]
    lanes: PathBuf,
    /// Where matrix.json and report.html go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// One short round: shows that everything runs, not how fast
    #[arg(long)]
    quick: bool,
    /// Rounds instead of the usual number
    #[arg(long)]
    rounds: Option<u32>,
    /// Seconds of a throughput run instead of the usual number
    #[arg(long)]
    seconds: Option<u32>,
    /// Only these tests
    #[arg(long, value_delimiter = ',')]
    tests: Vec<Test>,
    /// Only these datapaths
    #[arg(long, value_delimiter = ',')]
    datapaths: Vec<String>,
    /// How long setting up took, for the record
    #[arg(long, default_value_t = 0.0, hide = true)]
    setup_seconds: f64,
}

/// Results of the runs so far, by lane and test.
type Runs = BTreeMap<(usize, Test), Vec<(u32, Result<Sample, String>)>>;

/// Measures, writes, prints the table.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let topology = Topology::read(&args.lanes)?;
    let pace = pace(args);
    let choice = Choice {
        tests: args.tests.clone(),
        datapaths: args.datapaths.clone(),
        quick: args.quick,
    };
    let steps = plan::plan(&topology.lanes, &pace, &choice);
    ensure!(!steps.is_empty(), "there is nothing to measure");
    let host = Host::describe();
    let background_cores = background()?;
    let mut progress = Progress::new(steps.len(), plan::estimate(&steps, &pace));
    let runs = measure_all(&topology.lanes, &steps, &pace, &mut progress);
    let method = Method {
        mode: pace.mode.to_owned(),
        rounds: pace.rounds,
        seconds: pace.bulk_seconds,
        omitted_seconds: pace.omit_seconds,
        congestion_control: iperf::CONGESTION_CONTROL.to_owned(),
        took_seconds: progress.took().as_secs_f64() + args.setup_seconds,
        background_cores,
    };
    let results = outcomes(&topology.lanes, &runs);
    let matrix = Matrix::new(host, method, results, topology.skipped);
    write(&args.out, &matrix)?;
    render::print_markdown(&matrix)
}

/// What the machine does without us.
fn background() -> anyhow::Result<f64> {
    let meter = Meter::start()?;
    thread::sleep(BACKGROUND);
    Ok(meter.used()?.cores)
}

fn pace(args: &Args) -> Pace {
    let usual = if args.quick { Pace::QUICK } else { Pace::FULL };
    Pace {
        rounds: args.rounds.unwrap_or(usual.rounds),
        bulk_seconds: args.seconds.unwrap_or(usual.bulk_seconds),
        ..usual
    }
}

fn measure_all(lanes: &[Lane], steps: &[Step], pace: &Pace, progress: &mut Progress) -> Runs {
    let mut runs = Runs::new();
    for (number, step) in steps.iter().enumerate() {
        let lane = &lanes[step.lane];
        let what = format!("round {} {} {lane}", step.round + 1, step.test.name());
        progress.begins(&what);
        let result = measure::measure(lane, step.test, pace, number);
        let result = result.map_err(|error| format!("{error:#}"));
        progress.ended(&what, step.test, &result, pace.seconds(step.test));
        let key = (step.lane, step.test);
        runs.entry(key).or_default().push((step.round, result));
    }
    runs
}

fn outcomes(lanes: &[Lane], runs: &Runs) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = runs
        .iter()
        .map(|((lane, test), runs)| Outcome::of(&lanes[*lane], *test, runs))
        .collect();
    // Cells one after another, datapaths in the order the script set them up.
    outcomes.sort_by_key(Outcome::cell);
    outcomes
}

/// Writes `matrix.json` and `report.html`.
fn write(directory: &Path, matrix: &Matrix) -> anyhow::Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let json = directory.join("matrix.json");
    let text = serde_json::to_string_pretty(matrix)?;
    fs::write(&json, text + "\n").with_context(|| format!("cannot write {}", json.display()))?;
    render::write_page(&directory.join("report.html"), matrix)
}
