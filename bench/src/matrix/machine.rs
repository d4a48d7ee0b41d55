//! What the machine did meanwhile: processor time, memory, and what machine it is.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::Context;
use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

/// Ticks per second of `/proc/stat` where the kernel does not say.
const USER_HZ: f64 = 100.0;

/// Counts processor time from its creation.
pub struct Meter {
    started: Instant,
    before: Ticks,
}

/// Ticks of all cores together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    /// In every mode but idle and iowait.
    busy: u64,
    softirq: u64,
}

/// Cores used on average.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// user, nice, system, irq, softirq and steal, of the whole machine: a datapath in the kernel
    /// spends its time in softirq, where no process is charged for it.
    pub cores: f64,
    /// The softirq part.
    pub softirq: f64,
}

impl Meter {
    /// Starts counting.
    pub fn start() -> anyhow::Result<Self> {
        Ok(Self {
            started: Instant::now(),
            before: ticks()?,
        })
    }

    /// What was used since.
    pub fn used(&self) -> anyhow::Result<Used> {
        let now = ticks()?;
        let seconds = self.started.elapsed().as_secs_f64();
        let cores = |ticks: u64| ticks as f64 / hertz() / seconds;
        Ok(Used {
            cores: cores(now.busy.saturating_sub(self.before.busy)),
            softirq: cores(now.softirq.saturating_sub(self.before.softirq)),
        })
    }
}

fn hertz() -> f64 {
    match sysconf(SysconfVar::CLK_TCK) {
        Ok(Some(hertz)) => hertz as f64,
        _ => USER_HZ,
    }
}

fn ticks() -> anyhow::Result<Ticks> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    parse_ticks(&stat).context("/proc/stat has no line `cpu`")
}

/// Fields of the line `cpu`, proc(5): user nice system idle iowait irq softirq steal guest …, where
/// guest time is in user time already.
fn parse_ticks(stat: &str) -> Option<Ticks> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal] = *fields.first_chunk()?;
    Some(Ticks {
        busy: user + nice + system + irq + softirq + steal,
        softirq,
    })
}

/// Threads of a process that still runs.
pub fn threads(process: i32) -> Vec<i32> {
    fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Nanoseconds the processes' threads ran so far, from scheduler statistics: exact, where the ticks
/// of `/proc/PID/stat` miss work shorter than themselves.
pub fn run_ns(processes: &[i32]) -> u64 {
    let one = |process: &i32, thread: i32| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{process}/task/{thread}/schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    processes
        .iter()
        .flat_map(|process| threads(*process).into_iter().map(move |t| (process, t)))
        .filter_map(|(process, thread)| one(process, thread))
        .sum()
}

/// Proportional set size of the processes together: memory they share counts once. `None` where
/// the datapath has no process.
pub fn memory_bytes(processes: &[i32]) -> Option<u64> {
    let kib = |process: &i32| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    };
    (!processes.is_empty()).then(|| processes.iter().filter_map(kib).sum::<u64>() * 1024)
}

/// The machine, as the report describes it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Host {
    /// Release of the kernel.
    pub kernel: String,
    /// The processor's name.
    pub cpu: String,
    /// How many cores.
    pub cores: usize,
    /// How much memory.
    pub memory_bytes: u64,
    /// Version of iperf3.
    pub iperf3: String,
    /// When the measurement began, UTC.
    pub started: String,
}

impl Host {
    /// This machine, now.
    pub fn describe() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let kib = field(&read("/proc/meminfo"), "MemTotal");
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: kib.trim_end_matches("kB").trim().parse().unwrap_or(0) * 1024,
            iperf3: first_line("iperf3", "--version"),
            started: first_line("date", "--utc --iso-8601=minutes"),
        }
    }
}

fn first_line(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output();
    let text = output.map_or_else(|_| Vec::new(), |output| output.stdout);
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_but_idle_and_iowait_is_busy() {
        let stat =
            "cpu  1 20 300 4000 50000 600000 7000000 80000000 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        let ticks = parse_ticks(stat).unwrap();
        assert_eq!(ticks.busy, 87_600_321);
        assert_eq!(ticks.softirq, 7_000_000);
        assert_eq!(parse_ticks("intr 1"), None);
    }

    #[test]
    fn this_process_has_memory_and_ran() {
        let own = [std::process::id() as i32];
        assert!(memory_bytes(&own).unwrap() > 100_000);
        assert!(run_ns(&own) > 0);
        assert_eq!(memory_bytes(&[]), None);
    }

    #[test]
    fn spinning_counts_as_a_core() {
        let meter = Meter::start().unwrap();
        let started = Instant::now();
        while started.elapsed().as_millis() < 200 {}
        assert!(meter.used().unwrap().cores > 0.5);
    }
}
