//! One run: the right tool for the test, and the machine's processor time meanwhile.

use std::thread;
use std::time::Duration;

use super::document::Sample;
use super::exchange::{self, Exchanges};
use super::iperf;
use super::kind::{Bulk, Test};
use super::lane::Lane;
use super::machine::{self, Meter};
use super::netns::Confined;
use super::plan::Pace;
use super::sweep;

/// Where the ends of the pinned latency test run, and where the datapath's own threads go.
const ENDS_CORE: usize = 0;
const DATAPATH_CORE: usize = 1;

/// Runs `test` once in `lane`; `number` tells runs apart.
pub fn measure(lane: &Lane, test: Test, pace: &Pace, number: usize) -> anyhow::Result<Sample> {
    let sample = match test {
        Test::Rr => exchanges(|| exchange::over_one_connection(lane, pace.small, None))?,
        Test::RrPinned => {
            let _confined = Confined::to_core(&lane.processes, DATAPATH_CORE)?;
            exchanges(|| exchange::over_one_connection(lane, pace.small, Some(ENDS_CORE)))?
        }
        Test::Crr => exchanges(|| exchange::over_new_connections(lane, pace.small))?,
        Test::Pps64 => packets(lane, pace)?,
        Test::Idle => idle(lane, pace.idle)?,
        _ => match test.bulk() {
            Some(bulk) => throughput(lane, bulk, pace, number)?,
            None => anyhow::bail!("{} is no throughput test", test.name()),
        },
    };
    Ok(Sample {
        memory_bytes: machine::memory_bytes(&lane.processes),
        ..sample
    })
}

fn throughput(lane: &Lane, bulk: Bulk, pace: &Pace, number: usize) -> anyhow::Result<Sample> {
    let meter = Meter::start()?;
    let received = iperf::run(lane, bulk, pace, number)?;
    Ok(Sample {
        value: received.bits_per_second,
        lost_pct: received.lost_pct,
        retransmits: received.retransmits,
        cpu_cores: meter.used()?.cores,
        ..Sample::default()
    })
}

fn exchanges(run: impl FnOnce() -> anyhow::Result<Exchanges>) -> anyhow::Result<Sample> {
    let found = run()?;
    Ok(Sample {
        value: found.rate,
        cpu_cores: found.cpu_cores,
        latency_us: Some(found.latency),
        connect_us: found.connect,
        ..Sample::default()
    })
}

fn packets(lane: &Lane, pace: &Pace) -> anyhow::Result<Sample> {
    let found = sweep::sweep(lane, pace.trial)?;
    Ok(Sample {
        value: found.best.received_pps,
        lost_pct: Some(found.best.loss_pct()),
        cpu_cores: found.best.cpu_cores,
        overload_pps: Some(found.overload_pps),
        ..Sample::default()
    })
}

/// What the datapath costs while nothing happens: its processes from scheduler statistics, and the
/// machine's softirq time, where work it causes in the kernel would show.
fn idle(lane: &Lane, length: Duration) -> anyhow::Result<Sample> {
    let (meter, before) = (Meter::start()?, machine::run_ns(&lane.processes));
    thread::sleep(length);
    let used = meter.used()?;
    let own_ns = machine::run_ns(&lane.processes).saturating_sub(before);
    Ok(Sample {
        value: own_ns as f64 / 1e9 / length.as_secs_f64() + used.softirq,
        cpu_cores: used.cores,
        softirq_cores: Some(used.softirq),
        ..Sample::default()
    })
}
