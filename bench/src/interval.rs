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
    /// Longest delay that is caught up with.
    catch_up: Duration,
}

impl Interval {
    /// A rate of 0 means as fast as possible.
    pub fn new(rate_pps: u64) -> Self {
        Self {
            started: Instant::now(),
            rate_pps,
            sent: 0,
            catch_up: Duration::MAX,
        }
    }

    /// Never more than `burst` sends at once, however late: the mean rate gives way instead.
    pub fn smooth(rate_pps: u64, burst: u32) -> Self {
        let between = Duration::from_secs(1) / u32::try_from(rate_pps.max(1)).unwrap_or(u32::MAX);
        Self {
            catch_up: between * burst,
            ..Self::new(rate_pps)
        }
    }

    /// Returns when the next send is due.
    pub fn wait(&mut self) {
        if self.rate_pps > 0 {
            let due = Duration::from_nanos(
                u64::try_from(u128::from(self.sent) * 1_000_000_000 / u128::from(self.rate_pps))
                    .unwrap_or(u64::MAX),
            );
            let passed = self.started.elapsed();
            let early = due.saturating_sub(passed);
            let late = passed.saturating_sub(due);
            self.started += late.saturating_sub(self.catch_up);
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
    fn a_smooth_rate_does_not_catch_up_with_more_than_its_burst() {
        let mut interval = Interval::smooth(1_000, 4);
        interval.wait();
        std::thread::sleep(Duration::from_millis(50));
        let woke = Instant::now();
        for _ in 0..25 {
            interval.wait();
        }
        let took = woke.elapsed();
        assert!(took >= Duration::from_millis(18), "{took:?}");
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
