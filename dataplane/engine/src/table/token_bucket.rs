//! A rate limit in eight bytes: the virtual scheduling form of the leaky bucket (ITU-T I.371, GCRA).

/// What a bucket lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Time between two events at the sustained rate.
    interval_ns: u64,
    /// How far ahead of the sustained rate a burst may run.
    tolerance_ns: u64,
}

impl Rate {
    /// `per_second` events sustained, `burst` at once after a pause. Neither may be 0.
    pub const fn new(per_second: u64, burst: u64) -> Self {
        assert!(per_second > 0 && burst > 0, "a rate lets something through");
        let interval_ns = 1_000_000_000 / per_second;
        Self {
            interval_ns,
            tolerance_ns: interval_ns * (burst - 1),
        }
    }
}

/// The state of one limited thing.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenBucket {
    /// When the next event would be due at exactly the sustained rate.
    due_ns: u64,
}

impl TokenBucket {
    /// Whether an event may happen at `now_ns`; if so it is counted.
    #[inline]
    pub const fn take(&mut self, rate: Rate, now_ns: u64) -> bool {
        if self.due_ns > now_ns.saturating_add(rate.tolerance_ns) {
            return false;
        }
        let from = if self.due_ns > now_ns {
            self.due_ns
        } else {
            now_ns
        };
        self.due_ns = from.saturating_add(rate.interval_ns);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_passes_then_the_sustained_rate() {
        let rate = Rate::new(1000, 5);
        let mut bucket = TokenBucket::default();
        let burst = (0..20).filter(|_| bucket.take(rate, 7)).count();
        assert_eq!(burst, 5);
        let second = (1..=1000_u64)
            .filter(|ms| bucket.take(rate, 7 + ms * 1_000_000))
            .count();
        assert_eq!(second, 1000);
    }

    proptest! {
        #[test]
        fn never_more_than_burst_plus_rate_in_any_time(steps in prop::collection::vec(0_u64..5_000_000, 1..200)) {
            let rate = Rate::new(1000, 10);
            let mut bucket = TokenBucket::default();
            let (mut now, mut passed) = (0, 0);
            for step in steps {
                now += step;
                passed += u64::from(bucket.take(rate, now));
                prop_assert!(passed <= 10 + now / 1_000_000);
            }
        }
    }
}
