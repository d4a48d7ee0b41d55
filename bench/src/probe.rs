//! A sequence-numbered UDP probe with an echo: says exactly what the network did to each datagram.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Subcommand};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{setsockopt, sockopt};
use serde::Serialize;

use crate::interval::Interval;
use crate::pattern::Random;
use crate::stall::StallMeter;
use crate::{report, stop};

/// Largest UDP payload.
const DATAGRAM_MAX: usize = 65_507;
/// Sequence number and send time, big-endian, in front of the pattern.
const HEADER: usize = 16;
/// At 100,000 probes a second a receiver may sleep for this much before it loses one.
const BUFFER_BYTES: usize = 4 << 20;

/// Once every answer is in, this much longer for a duplicate of the last.
const DUPLICATES_WITHIN: Duration = Duration::from_millis(50);

/// Which end.
#[derive(Subcommand)]
pub enum Side {
    /// Sends every probe back until it is told to stop
    Server(ServerArgs),
    /// Sends probes at a rate and judges the answers; SIGINT ends it early, with a result
    Client(ClientArgs),
}

/// Options of the echoing end.
#[derive(Args)]
pub struct ServerArgs {
    /// Address and port to listen on
    #[arg(long)]
    listen: SocketAddr,
}

/// Options of the measuring end.
#[derive(Args)]
pub struct ClientArgs {
    /// Address and port of the server
    #[arg(long)]
    to: SocketAddr,
    /// Probes per second
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// How long to send
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How long to wait for the last answers
    #[arg(long, default_value_t = 1.0)]
    linger: f64,
    /// UDP payload of each probe, in bytes
    #[arg(long, default_value_t = 64)]
    payload: usize,
}

/// What the client found.
#[derive(Debug, Serialize)]
struct Found {
    sent: u64,
    received: u64,
    lost: u64,
    /// How many may be missing because the machine stood still meanwhile: the rate times that time.
    excused: u64,
    /// Sequence number of the first one that is missing: 0 points at path discovery, others at loss.
    first_lost: Option<u64>,
    duplicated: u64,
    reordered: u64,
    /// Arrived, but not with the bytes that were sent.
    corrupted: u64,
    /// Sends or receives the kernel refused: unreachable, too big, connection refused.
    errors: u64,
    /// Longest time without an answer while sending, in milliseconds.
    gap_ms_max: f64,
    rtt_us: Quantiles,
}

/// Round-trip times in microseconds.
#[derive(Debug, Default, Serialize)]
struct Quantiles {
    p50: f64,
    p99: f64,
    max: f64,
}

/// What the server saw.
#[derive(Serialize)]
struct Echoed {
    received: u64,
    corrupted: u64,
}

/// Runs one end.
pub fn run(side: &Side) -> anyhow::Result<()> {
    match side {
        Side::Server(args) => report::print(&serve(args)?),
        Side::Client(args) => {
            // Before the meter starts threads, which would take the signals for themselves.
            let stop = stop::signals()?;
            let (found, stalled) = StallMeter::beside(args.rate, || measure(args, &stop));
            let excused = (args.rate as f64 * stalled.as_secs_f64()).ceil() as u64;
            report::print(&Found { excused, ..found? })
        }
    }
}

fn serve(args: &ServerArgs) -> anyhow::Result<Echoed> {
    let stop = stop::signals()?;
    let socket = UdpSocket::bind(args.listen)
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    let mut datagram = vec![0; DATAGRAM_MAX];
    let mut echoed = Echoed {
        received: 0,
        corrupted: 0,
    };
    while stop::readable(&stop, &[socket.as_fd()])? {
        while let Ok((len, from)) = socket.recv_from(&mut datagram) {
            echoed.received += 1;
            echoed.corrupted += u64::from(parse(&datagram[..len]).is_none());
            // A lost answer is what the client is there to count.
            let _ = socket.send_to(&datagram[..len], from);
        }
    }
    Ok(echoed)
}

fn measure(args: &ClientArgs, stop: &SignalFd) -> anyhow::Result<Found> {
    let local: SocketAddr = match args.to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).context("cannot open a socket")?;
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES);
    socket
        .connect(args.to)
        .with_context(|| format!("cannot reach {}", args.to))?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let run = Run {
        started: Instant::now(),
        sent: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        finished: AtomicBool::new(false),
    };
    let answers = std::thread::scope(|scope| {
        scope.spawn(|| run.send(&socket, args));
        run.collect(&socket, stop, Duration::from_secs_f64(args.linger))
    });
    Ok(answers.judge(
        run.sent.load(Ordering::Relaxed),
        run.errors.load(Ordering::Relaxed),
    ))
}

/// What the sending and the receiving thread share.
struct Run {
    started: Instant,
    /// Sender: rw, receiver: ro.
    sent: AtomicU64,
    /// Sends the kernel refused. Sender: rw, receiver: ro.
    errors: AtomicU64,
    /// No further send. Set by the sender when its time is over, by the receiver on a signal.
    finished: AtomicBool,
}

impl Run {
    fn send(&self, socket: &UdpSocket, args: &ClientArgs) {
        let payload = args.payload.clamp(HEADER + 8, DATAGRAM_MAX);
        let mut datagram = vec![0; payload];
        let mut interval = Interval::new(args.rate);
        let end = self.started + Duration::from_secs_f64(args.seconds);
        loop {
            interval.wait();
            if self.finished.load(Ordering::Relaxed) || Instant::now() >= end {
                break;
            }
            let seq = self.sent.fetch_add(1, Ordering::Relaxed);
            write(&mut datagram, seq, elapsed_ns(self.started));
            if socket.send(&datagram).is_err() {
                self.errors.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.finished.store(true, Ordering::Relaxed);
    }

    /// Takes answers until all are in or `linger` has passed after the last send.
    fn collect(&self, socket: &UdpSocket, stop: &SignalFd, linger: Duration) -> Answers {
        let mut answers = Answers::default();
        let mut datagram = vec![0; DATAGRAM_MAX];
        let mut finished_at = None;
        loop {
            if matches!(stop.read_signal(), Ok(Some(_))) {
                self.finished.store(true, Ordering::Relaxed);
            }
            let finished = self.finished.load(Ordering::Relaxed);
            if finished {
                let since = finished_at.get_or_insert_with(Instant::now).elapsed();
                let all_in = answers.seen_count == self.sent.load(Ordering::Relaxed);
                if since >= linger || (all_in && since >= DUPLICATES_WITHIN) {
                    return answers;
                }
            }
            match socket.recv(&mut datagram) {
                Ok(len) => match parse(&datagram[..len]) {
                    Some((seq, sent_ns)) if seq < self.sent.load(Ordering::Relaxed) => {
                        answers.take(seq, sent_ns, elapsed_ns(self.started));
                    }
                    _ => answers.corrupted += 1,
                },
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => answers.errors += 1,
            }
            if !finished {
                answers.gap_until(elapsed_ns(self.started));
            }
        }
    }
}

/// Answers as they came.
#[derive(Default)]
struct Answers {
    seen: Vec<bool>,
    seen_count: u64,
    highest: Option<u64>,
    last_ns: u64,
    gap_ns_max: u64,
    duplicated: u64,
    reordered: u64,
    corrupted: u64,
    errors: u64,
    rtt_ns: Vec<u64>,
}

impl Answers {
    /// One answer; `seq` is one that was sent.
    fn take(&mut self, seq: u64, sent_ns: u64, now_ns: u64) {
        let slot = usize::try_from(seq).unwrap_or(usize::MAX);
        if self.seen.len() <= slot {
            self.seen.resize(slot + 1, false);
        }
        if std::mem::replace(&mut self.seen[slot], true) {
            self.duplicated += 1;
            return;
        }
        self.seen_count += 1;
        self.reordered += u64::from(self.highest.is_some_and(|highest| seq < highest));
        self.highest = self.highest.max(Some(seq));
        self.gap_until(now_ns);
        self.last_ns = now_ns;
        self.rtt_ns.push(now_ns.saturating_sub(sent_ns));
    }

    fn gap_until(&mut self, now_ns: u64) {
        self.gap_ns_max = self.gap_ns_max.max(now_ns.saturating_sub(self.last_ns));
    }

    fn judge(mut self, sent: u64, send_errors: u64) -> Found {
        self.rtt_ns.sort_unstable();
        let at = |share: f64| {
            let last = self.rtt_ns.len().saturating_sub(1);
            let index = (last as f64 * share).round() as usize;
            self.rtt_ns.get(index).map_or(0.0, |ns| *ns as f64 / 1e3)
        };
        Found {
            sent,
            received: self.seen_count,
            lost: sent.saturating_sub(self.seen_count),
            excused: 0,
            first_lost: (0..sent)
                .find(|seq| !self.seen.get(*seq as usize).copied().unwrap_or(false)),
            duplicated: self.duplicated,
            reordered: self.reordered,
            corrupted: self.corrupted,
            errors: self.errors + send_errors,
            gap_ms_max: self.gap_ns_max as f64 / 1e6,
            rtt_us: Quantiles {
                p50: at(0.50),
                p99: at(0.99),
                max: at(1.0),
            },
        }
    }
}

fn elapsed_ns(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Header, then a pattern that depends on it.
fn write(datagram: &mut [u8], seq: u64, now_ns: u64) {
    datagram[..8].copy_from_slice(&seq.to_be_bytes());
    datagram[8..HEADER].copy_from_slice(&now_ns.to_be_bytes());
    Random::new(seq ^ now_ns.rotate_left(32)).fill(&mut datagram[HEADER..]);
}

/// Sequence number and send time of an undamaged probe.
fn parse(datagram: &[u8]) -> Option<(u64, u64)> {
    let seq = u64::from_be_bytes(datagram.get(..8)?.try_into().ok()?);
    let sent_ns = u64::from_be_bytes(datagram.get(8..HEADER)?.try_into().ok()?);
    let mut expected = vec![0; datagram.len()];
    write(&mut expected, seq, sent_ns);
    (expected == datagram).then_some((seq, sent_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_damage_anywhere() {
        let mut datagram = [0; 64];
        write(&mut datagram, 77, 123_456);
        assert_eq!(parse(&datagram), Some((77, 123_456)));
        for bit in 0..datagram.len() * 8 {
            let mut damaged = datagram;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&damaged), None, "bit {bit}");
        }
        assert_eq!(parse(&datagram[..15]), None);
    }

    #[test]
    fn counts_loss_duplicates_and_disorder() {
        let mut answers = Answers::default();
        for (seq, at) in [(0, 10), (2, 20), (1, 30), (1, 40), (5, 50)] {
            answers.take(seq, at - 5, at);
        }
        let found = answers.judge(6, 0);
        assert_eq!((found.received, found.lost), (4, 2));
        assert_eq!(found.first_lost, Some(3));
        assert_eq!((found.duplicated, found.reordered), (1, 1));
        assert!((found.rtt_us.max - 0.005).abs() < 1e-9);
    }

    #[test]
    fn loses_nothing_on_loopback() {
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        let to = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut datagram = [0; 2_000];
            while let Ok((len, from)) = socket.recv_from(&mut datagram) {
                socket.send_to(&datagram[..len], from).unwrap();
            }
        });
        let args = ClientArgs {
            to,
            rate: 2_000,
            seconds: 0.3,
            linger: 0.5,
            payload: 100,
        };
        let found = measure(&args, &stop::signals().unwrap()).unwrap();
        assert!(found.sent > 500, "{found:?}");
        assert_eq!((found.lost, found.corrupted, found.errors), (0, 0, 0));
    }
}
