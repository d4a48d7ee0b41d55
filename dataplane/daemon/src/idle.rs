//! When a worker looks again, naps or waits: pure, time is an argument.

use std::time::Duration;

use crate::config::Tuning;

/// What to do before the next look at the rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Look again at once.
    Spin,
    /// Sleep so long: packets gather and the kernel wakes nobody per packet.
    Nap(Duration),
    /// Wait for the kernel's wake-up: the node is idle.
    Wait,
}

/// Adaptive rest of one worker.
#[derive(Debug)]
pub struct Idle {
    spin_ns: u64,
    awake_ns: u64,
    nap: Duration,
    last_work_ns: u64,
}

impl Idle {
    /// Rest according to `tuning`.
    pub fn new(tuning: &Tuning) -> Self {
        Self {
            spin_ns: tuning.spin_us * 1_000,
            awake_ns: tuning.awake_us * 1_000,
            nap: Duration::from_micros(tuning.nap_us),
            last_work_ns: 0,
        }
    }

    /// What follows a look at `now_ns` that found packets (`worked`) or did not.
    pub fn after(&mut self, worked: bool, now_ns: u64) -> Rest {
        if worked {
            self.last_work_ns = now_ns;
            return Rest::Spin;
        }
        let idle_ns = now_ns.saturating_sub(self.last_work_ns);
        if idle_ns < self.spin_ns {
            Rest::Spin
        } else if idle_ns < self.awake_ns && !self.nap.is_zero() {
            Rest::Nap(self.nap)
        } else {
            Rest::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_longer_the_longer_nothing_comes() {
        let mut idle = Idle::new(&Tuning::default());
        let us = |us: u64| us * 1_000;
        assert_eq!(idle.after(true, us(100)), Rest::Spin);
        assert_eq!(idle.after(false, us(110)), Rest::Spin);
        assert_eq!(
            idle.after(false, us(130)),
            Rest::Nap(Duration::from_micros(40))
        );
        assert_eq!(idle.after(true, us(170)), Rest::Spin);
        assert_eq!(
            idle.after(false, us(2_100)),
            Rest::Nap(Duration::from_micros(40))
        );
        assert_eq!(idle.after(false, us(2_200)), Rest::Wait);
    }

    #[test]
    fn without_naps_it_goes_from_spinning_to_waiting() {
        let mut idle = Idle::new(&Tuning {
            nap_us: 0,
            ..Tuning::default()
        });
        idle.after(true, 1_000_000);
        assert_eq!(idle.after(false, 1_010_000), Rest::Spin);
        assert_eq!(idle.after(false, 1_020_000), Rest::Wait);
    }
}
