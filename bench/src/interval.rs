//! Sending at a rate.

use std::time::{Duration, Instant};

/// Sleeps shorter than this overshoot by more than they last; what is due is sent at once instead.
const SHORTEST_SLEEP: Duration = Duration::from_micros(60);

/// Hands out the sends that are due at `rate_pps`, counted from its creation, so that a late
/// wake-up is caught up with and the mean rate holds.
pub struct Interval {
    started: Instant,
    rate_pps: u64,
    sent: u64,
}

impl Interval {
    /// A rate of 0 means as fast as possible.
    pub fn new(rate_pps: u64) -> Self {
        Self {
            started: Instant::now(),
            rate_pps,
            sent: 0,
        }
    }

    /// Returns when the next send is due.
    pub fn wait(&mut self) {
        if self.rate_pps > 0 {
            let due = Duration::from_nanos(
                u64::try_from(u128::from(self.sent) * 1_000_000_000 / u128::from(self.rate_pps))
                    .unwrap_or(u64::MAX),
            );
            let early = due.saturating_sub(self.started.elapsed());
            if early > SHORTEST_SLEEP {
                std::thread::sleep(early);
            }
        }
        self.sent += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_mean_rate() {
        let started = Instant::now();
        let mut interval = Interval::new(10_000);
        for _ in 0..1_001 {
            interval.wait();
        }
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(99), "{took:?}");
    }

    #[test]
    fn zero_is_unpaced() {
        let started = Instant::now();
        let mut interval = Interval::new(0);
        for _ in 0..1_000 {
            interval.wait();
        }
        assert!(started.elapsed() < Duration::from_millis(100));
    }
}
