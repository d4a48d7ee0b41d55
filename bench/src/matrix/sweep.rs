//! Packets per second: the smallest UDP datagrams at given rates, open loop, one generator for every
//! datapath. The sender does not wait for anybody, so a datapath cannot look good by slowing it down.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use nix::sys::socket::{setsockopt, sockopt};

use super::lane::Lane;
use super::machine::Meter;
use super::netns;
use crate::interval::Interval;

/// UDP payload of a frame of 64 bytes: 14 + 20 + 8 bytes of headers and 4 of check sequence.
const PAYLOAD: usize = 18;
/// A rate that loses less than this counts as one without loss.
const LOSS_PCT_MAX: f64 = 0.1;
/// A sender slower than this share of its rate is at its own end.
const KEPT_UP: f64 = 0.95;
/// Rates tried: from what any machine forwards to more than one sender makes.
const RATE_MIN: u64 = 20_000;
const RATE_MAX: u64 = 5_000_000;
/// Halvings of the last interval, which leave it within 5 % of the truth.
const BISECTIONS: u32 = 4;
/// More trials of a rate the sender cannot make.
const SATURATED_TRIALS: u32 = 4;
/// The receiver's buffer, so that its own sleeps lose nothing: 100 ms at 200,000 packets a second.
const BUFFER_BYTES: usize = 16 << 20;
/// Nothing for this long after the first datagram: that was all.
const QUIET: Duration = Duration::from_millis(60);
/// Nothing at all for this long: nothing arrives.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// One rate tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// What was asked for, in packets per second.
    pub rate_pps: u64,
    /// What the sender made of it.
    pub sent_pps: f64,
    /// What arrived, over the same time.
    pub received_pps: f64,
    /// Cores the whole machine used.
    pub cpu_cores: f64,
}

impl Trial {
    /// How much of what was sent did not arrive, in percent.
    pub fn loss_pct(&self) -> f64 {
        (1.0 - self.received_pps / self.sent_pps.max(1.0)).max(0.0) * 100.0
    }

    fn lossless(&self) -> bool {
        self.loss_pct() < LOSS_PCT_MAX
    }

    fn kept_up(&self) -> bool {
        self.sent_pps >= KEPT_UP * self.rate_pps as f64
    }
}

/// What a sweep found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The fastest trial without loss.
    pub best: Trial,
    /// What still arrives when twice as much is offered, in packets per second.
    pub overload_pps: f64,
}

/// Sweeps `lane`, with trials of `length`.
pub fn sweep(lane: &Lane, length: Duration) -> anyhow::Result<Found> {
    let sink = netns::udp(&lane.server, None)?;
    let _ = setsockopt(&sink, sockopt::RcvBufForce, &BUFFER_BYTES);
    let to = SocketAddr::new(lane.address, sink.local_addr()?.port());
    let source = netns::udp(&lane.client, Some(to))?;
    // The first packets wait for a neighbour entry and open the flow.
    trial(&source, &sink, 1_000, Duration::from_millis(20))?;
    search(|rate_pps| trial(&source, &sink, rate_pps, length))
}

/// Looks for the highest rate without loss: doubles while nothing is lost, then bisects.
fn search(trial: impl FnMut(u64) -> anyhow::Result<Trial>) -> anyhow::Result<Found> {
    let mut search = Search { trial, best: None };
    let (low, high) = search.climb()?;
    if search.at_senders_end() {
        search.repeat(high)?;
    } else {
        search.narrow(low, high)?;
    }
    let best = search
        .best
        .ok_or_else(|| anyhow!("packets are lost at every rate that was tried"))?;
    let overload = (search.trial)(best.sent_pps as u64 * 2)?;
    Ok(Found {
        best,
        overload_pps: overload.received_pps,
    })
}

/// A search under way.
struct Search<F> {
    trial: F,
    /// The fastest trial without loss so far.
    best: Option<Trial>,
}

impl<F: FnMut(u64) -> anyhow::Result<Trial>> Search<F> {
    /// Doubles the rate until something is lost or the sender is at its end; the last two rates.
    fn climb(&mut self) -> anyhow::Result<(u64, u64)> {
        let (mut low, mut high) = (RATE_MIN / 20, RATE_MIN);
        while high <= RATE_MAX && self.lossless_at(high)? && !self.at_senders_end() {
            (low, high) = (high, high * 2);
        }
        Ok((low, high))
    }

    /// Bisects between a rate without loss and one with it.
    fn narrow(&mut self, mut low: u64, mut high: u64) -> anyhow::Result<()> {
        for _ in 0..BISECTIONS {
            let middle = ((low as f64) * (high as f64)).sqrt() as u64;
            if self.lossless_at(middle)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(())
    }

    /// How fast a sender at its end is depends on where the scheduler put receiver and softirq, and
    /// jumps by a factor of two from one trial to the next: the best of a few counts.
    fn repeat(&mut self, rate: u64) -> anyhow::Result<()> {
        for _ in 0..SATURATED_TRIALS {
            let tried = (self.trial)(rate)?;
            self.keep(tried);
        }
        Ok(())
    }

    /// A rate has to fail twice: a machine's single hiccup is not the datapath's doing.
    fn lossless_at(&mut self, rate: u64) -> anyhow::Result<bool> {
        for _ in 0..2 {
            let tried = (self.trial)(rate)?;
            if self.keep(tried) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn keep(&mut self, tried: Trial) -> bool {
        let faster = self.best.is_none_or(|best| tried.sent_pps > best.sent_pps);
        if tried.lossless() && faster {
            self.best = Some(tried);
        }
        tried.lossless()
    }

    /// Nothing is lost, but the sender does not make the rate.
    fn at_senders_end(&self) -> bool {
        self.best.is_some_and(|best| !best.kept_up())
    }
}

/// Sends at one rate and counts what arrives.
fn trial(
    source: &UdpSocket,
    sink: &UdpSocket,
    rate_pps: u64,
    length: Duration,
) -> anyhow::Result<Trial> {
    let sink = sink.try_clone().context("cannot share a socket")?;
    let meter = Meter::start()?;
    let counter = thread::spawn(move || count(&sink));
    let started = Instant::now();
    let (mut interval, mut sent) = (Interval::new(rate_pps), 0_u64);
    while started.elapsed() < length {
        interval.wait();
        // What the sender's own kernel refuses was offered too, and is lost.
        let _ = source.send(&[0; PAYLOAD]);
        sent += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu_cores = meter.used()?.cores;
    let received = counter
        .join()
        .map_err(|_| anyhow!("the receiver panicked"))??;
    Ok(Trial {
        rate_pps,
        sent_pps: sent as f64 / seconds,
        received_pps: received as f64 / seconds,
        cpu_cores,
    })
}

/// Counts datagrams until they end.
fn count(sink: &UdpSocket) -> anyhow::Result<u64> {
    let (started, mut received, mut datagram) = (Instant::now(), 0, [0; PAYLOAD]);
    sink.set_read_timeout(Some(QUIET))?;
    loop {
        match sink.recv(&mut datagram) {
            Ok(_) => received += 1,
            Err(_) if received == 0 && started.elapsed() < FIRST_WITHIN => {}
            Err(_) => return Ok(received),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A datapath that forwards `limit` packets per second, and a sender that makes `most`.
    fn model(limit: f64, most: f64) -> impl FnMut(u64) -> anyhow::Result<Trial> {
        move |rate_pps| {
            let sent_pps = (rate_pps as f64).min(most);
            Ok(Trial {
                rate_pps,
                sent_pps,
                received_pps: sent_pps.min(limit),
                cpu_cores: 1.0,
            })
        }
    }

    #[test]
    fn finds_the_limit_of_a_datapath_from_below() {
        let found = search(model(130_000.0, 1e6)).unwrap();
        assert!(
            (122_000.0..=130_000.0).contains(&found.best.received_pps),
            "{found:?}"
        );
        assert_eq!(found.overload_pps, 130_000.0);
    }

    #[test]
    fn finds_a_limit_below_the_first_rate() {
        let found = search(model(9_000.0, 1e6)).unwrap();
        assert!(
            (7_000.0..=9_000.0).contains(&found.best.received_pps),
            "{found:?}"
        );
    }

    #[test]
    fn stops_where_the_sender_ends() {
        let found = search(model(1e9, 300_000.0)).unwrap();
        assert_eq!(found.best.sent_pps, 300_000.0);
    }

    #[test]
    fn one_hiccup_does_not_decide() {
        let (mut model, mut trials) = (model(1e9, 300_000.0), 0);
        let found = search(|rate| {
            trials += 1;
            let trial = model(rate)?;
            let received_pps = if trials == 2 { 0.0 } else { trial.received_pps };
            Ok(Trial {
                received_pps,
                ..trial
            })
        });
        assert_eq!(found.unwrap().best.sent_pps, 300_000.0);
    }

    #[test]
    fn nothing_forwarded_is_an_error() {
        assert!(search(model(0.0, 1e6)).is_err());
    }

    #[test]
    fn counts_over_loopback() {
        let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
        let source = UdpSocket::bind("127.0.0.1:0").unwrap();
        source.connect(sink.local_addr().unwrap()).unwrap();
        let found = trial(&source, &sink, 5_000, Duration::from_millis(100)).unwrap();
        assert!(found.lossless(), "{found:?}");
        assert!((4_000.0..6_000.0).contains(&found.sent_pps), "{found:?}");
    }
}
