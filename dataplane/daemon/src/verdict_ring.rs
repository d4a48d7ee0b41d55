//! Policy verdicts for a log: the worker's half writes those that are asked for into a ring, as many as its rate
//! allows, and counts the rest; the log's thread reads them. A full ring loses verdicts, never packets.

use std::net::IpAddr;
use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};
use weft_engine::PolicyVerdict;
use weft_engine::table::token_bucket::{Rate, TokenBucket};
use weft_snapshot::SharedCounters;

/// Verdicts a worker shows: more than people read and few enough that neither a flood nor a port scan costs the log's
/// thread a core; what does not fit is counted.
const RATE: Rate = Rate::new(1_000, 1_000);

/// Verdicts between a worker and the log's thread: a burst, with room for 20 ms more.
const RING_VERDICTS: usize = 1_024;

/// Which verdicts a log shows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// With one of these at an end; none: any.
    pub addresses: Option<Box<[IpAddr]>>,
    /// Only those that deny, or only those that allow.
    pub denied: Option<bool>,
}

/// A verdict and when it was given, in the workers' clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timed {
    /// Nanoseconds.
    pub time_ns: u64,
    /// The verdict.
    pub verdict: PolicyVerdict,
}

/// The worker's half.
pub struct VerdictWriter {
    filter: Filter,
    ring: Producer<Timed>,
    bucket: TokenBucket,
    /// Verdicts that found no room; written by the worker, read by the log's thread.
    left_out: Arc<SharedCounters>,
}

/// The log's half.
pub struct VerdictReader {
    ring: Consumer<Timed>,
    left_out: Arc<SharedCounters>,
    /// How many of them were told.
    told: u64,
}

/// Both halves.
pub fn verdict_ring(filter: Filter) -> (VerdictWriter, VerdictReader) {
    let (producer, consumer) = RingBuffer::new(RING_VERDICTS);
    let left_out = Arc::new(SharedCounters::new(1));
    let writer = VerdictWriter {
        filter,
        ring: producer,
        bucket: TokenBucket::default(),
        left_out: Arc::clone(&left_out),
    };
    let reader = VerdictReader {
        ring: consumer,
        left_out,
        told: 0,
    };
    (writer, reader)
}

impl Filter {
    #[inline]
    fn takes(&self, verdict: &PolicyVerdict) -> bool {
        let connection = &verdict.connection;
        let is_end = |addresses: &[IpAddr]| {
            addresses.contains(&connection.source) || addresses.contains(&connection.destination)
        };
        let is_denied = verdict.reason.is_some();
        self.denied.is_none_or(|denied| denied == is_denied)
            && self.addresses.as_deref().is_none_or(is_end)
    }
}

impl VerdictWriter {
    /// False once the reader is gone.
    pub fn wanted(&self) -> bool {
        !self.ring.is_abandoned()
    }

    /// Shows a verdict, if it is asked for.
    #[inline]
    pub fn write(&mut self, time_ns: u64, verdict: &PolicyVerdict) {
        if !self.filter.takes(verdict) {
            return;
        }
        let timed = Timed {
            time_ns,
            verdict: *verdict,
        };
        if !self.bucket.take(RATE, time_ns) || self.ring.push(timed).is_err() {
            self.left_out.store(0, self.left_out.load(0) + 1);
        }
    }
}

impl VerdictReader {
    /// The next verdict, if one is there.
    pub fn next(&mut self) -> Option<Timed> {
        self.ring.pop().ok()
    }

    /// How many were left out since the last call.
    pub fn left_out(&mut self) -> u64 {
        let all = self.left_out.load(0);
        all - std::mem::replace(&mut self.told, all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_engine::{Connection, DropReason, Judgement, Side, Traffic};
    use weft_wire::Protocol;

    fn verdict(source: &str, reason: Option<DropReason>) -> PolicyVerdict {
        PolicyVerdict {
            connection: Connection {
                source: source.parse().unwrap(),
                destination: "10.0.0.2".parse().unwrap(),
                traffic: Traffic::new(Protocol::TCP, 80),
                from_node: false,
            },
            source_port: 4000,
            judgement: Judgement {
                egress: Side::Elsewhere,
                ingress: Side::Unknown,
            },
            policy_epoch: 1,
            reason,
        }
    }

    fn shown(filter: Filter, verdict: &PolicyVerdict) -> bool {
        let (mut writer, mut reader) = verdict_ring(filter);
        writer.write(7, verdict);
        assert_eq!(
            reader.left_out(),
            0,
            "what is not asked for is not left out"
        );
        let next = reader.next();
        assert!(next.is_none_or(|it| it.time_ns == 7 && it.verdict == *verdict));
        next.is_some()
    }

    #[test]
    fn shows_what_is_asked_for() {
        let allowed = verdict("10.0.0.1", None);
        let denied = verdict("10.0.0.9", Some(DropReason::PolicyIngress));
        let only = |addresses: &[&str], denied| Filter {
            addresses: Some(addresses.iter().map(|it| it.parse().unwrap()).collect()),
            denied,
        };
        for (filter, shows) in [
            (Filter::default(), [true, true]),
            (only(&["10.0.0.1", "fd00::1"], None), [true, false]),
            (only(&["10.0.0.2"], None), [true, true]),
            (only(&["10.0.0.2"], Some(true)), [false, true]),
            (only(&["10.0.0.9"], Some(false)), [false, false]),
            (only(&[], None), [false, false]),
        ] {
            let found = [&allowed, &denied].map(|it| shown(filter.clone(), it));
            assert_eq!(found, shows, "{filter:?}");
        }
    }

    #[test]
    fn what_exceeds_the_rate_is_counted() {
        let (mut writer, mut reader) = verdict_ring(Filter::default());
        let denied = verdict("10.0.0.9", Some(DropReason::PolicyIngress));
        for number in 0..5_000 {
            writer.write(number * 1_000, &denied);
        }
        let mut seen = 0;
        while reader.next().is_some() {
            seen += 1;
        }
        assert!((1_000..=1_024).contains(&seen), "{seen}");
        assert_eq!((reader.left_out(), reader.left_out()), (5_000 - seen, 0));
        writer.write(2_000_000_000, &denied);
        assert!(reader.next().is_some() && reader.left_out() == 0);
        drop(reader);
        assert!(!writer.wanted());
    }
}
