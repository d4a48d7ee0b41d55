//! When a worker looks again, naps or waits: pure, time is an argument.
//!
//! Many frames come: it naps whenever the rings are empty, the longer the more come, so that the kernel gathers a
//! burst and wakes nobody per packet. Few come: it looks a moment longer, then lets the kernel wake it at once, since
//! somebody waits for each of them.

use std::time::Duration;

use crate::config::Tuning;

/// Frames to gather in one nap: two rounds' worth. Fewer, and the cost of a nap (a timer and two context switches,
/// 3 to 5 us) shows; more, and they leave the L2 cache before they are sent on.
const NAP_FRAMES: u64 = 64;

/// When fewer than these would come during a whole nap, each is worth a wake-up of its own.
const NAP_FRAMES_MIN: u64 = 8;

/// What to do before the next look at the rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Look again at once.
    Spin,
    /// Sleep so long: packets gather and the kernel wakes nobody per packet.
    Nap(Duration),
    /// Wait for the kernel's wake-up.
    Wait,
}

/// Adaptive rest of one worker.
#[derive(Debug)]
pub struct Idle {
    spin_ns: u64,
    nap_ns: u64,
    last_work_ns: u64,
    /// When it last began to rest, and the frames found since.
    rested_at_ns: u64,
    frames: u64,
}

impl Idle {
    /// Rest according to `tuning`.
    pub fn new(tuning: &Tuning) -> Self {
        Self {
            spin_ns: tuning.spin_us * 1_000,
            nap_ns: tuning.nap_us * 1_000,
            last_work_ns: 0,
            rested_at_ns: 0,
            frames: 0,
        }
    }

    /// What follows a look at `now_ns` that found `frames`.
    pub fn after(&mut self, frames: u64, now_ns: u64) -> Rest {
        if frames > 0 {
            self.frames += frames;
            self.last_work_ns = now_ns;
            return Rest::Spin;
        }
        let rest = self.rest(now_ns);
        if rest != Rest::Spin {
            (self.rested_at_ns, self.frames) = (now_ns, 0);
        }
        rest
    }

    fn rest(&self, now_ns: u64) -> Rest {
        let elapsed_ns = now_ns
            .saturating_sub(self.rested_at_ns)
            .max(self.nap_ns)
            .max(1);
        let expected = (self.frames * self.nap_ns / elapsed_ns).min(NAP_FRAMES);
        if expected >= NAP_FRAMES_MIN {
            return Rest::Nap(Duration::from_nanos(self.nap_ns * expected / NAP_FRAMES));
        }
        if now_ns.saturating_sub(self.last_work_ns) < self.spin_ns {
            Rest::Spin
        } else {
            Rest::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(us: u64) -> u64 {
        us * 1_000
    }

    fn idle(spin_us: u64, nap_us: u64) -> Idle {
        Idle::new(&Tuning {
            spin_us,
            nap_us,
            ..Tuning::default()
        })
    }

    #[test]
    fn a_few_packets_are_waited_for_where_the_kernel_wakes_it() {
        let mut idle = idle(5, 100);
        assert_eq!(idle.after(0, us(1_000)), Rest::Wait);
        assert_eq!(idle.after(1, us(2_000)), Rest::Spin);
        assert_eq!(idle.after(0, us(2_004)), Rest::Spin);
        assert_eq!(idle.after(0, us(2_006)), Rest::Wait);
    }

    #[test]
    fn naps_are_as_long_as_the_load_is_heavy() {
        let mut idle = idle(5, 100);
        idle.after(0, us(1_000));
        idle.after(64, us(1_100));
        assert_eq!(
            idle.after(0, us(1_100)),
            Rest::Nap(Duration::from_micros(100))
        );
        idle.after(16, us(1_200));
        assert_eq!(
            idle.after(0, us(1_200)),
            Rest::Nap(Duration::from_micros(25))
        );
        idle.after(2, us(1_225));
        assert_eq!(idle.after(0, us(1_225)), Rest::Spin);
        assert_eq!(idle.after(0, us(1_231)), Rest::Wait);
    }

    #[test]
    fn without_naps_it_goes_from_spinning_to_waiting() {
        let mut idle = idle(20, 0);
        idle.after(1_000, us(1_000));
        assert_eq!(idle.after(0, us(1_010)), Rest::Spin);
        assert_eq!(idle.after(0, us(1_020)), Rest::Wait);
    }
}
