//! Whether the machine itself stood still: a virtual machine whose host takes the processor away
//! loses packets that no program on it could have saved.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
};

/// How often a core is asked whether it runs.
const TICK: Duration = Duration::from_millis(5);

/// Packets that every queue on the way holds while nobody takes them: a port with traffic among 200
/// has about so many frames.
const PACKETS_HELD: f64 = 96.0;

/// And what is shorter than this is no stall.
const SHORTEST: Duration = Duration::from_millis(10);

/// Real-time priority above everything that is measured, below the kernel's own watchdogs.
const PRIORITY: u8 = 90;

/// Watches every core for as long as a measurement runs.
#[derive(Default)]
pub struct StallMeter {
    finished: AtomicBool,
    shortest: Duration,
    /// Written by the cores' threads, each adds what it found.
    stalled_ns: AtomicU64,
}

impl StallMeter {
    /// Runs `measured`, which sends `rate` packets per second, and says for how long cores stood
    /// still meanwhile, summed over all cores; what was too short to lose a packet does not count. 0
    /// where real-time priority is not allowed: then nothing can be told from an ordinary wait.
    pub fn beside<T>(rate: u64, measured: impl FnOnce() -> T) -> (T, Duration) {
        let held = Duration::from_secs_f64(PACKETS_HELD / rate.max(1) as f64);
        let meter = Self {
            shortest: held.max(SHORTEST),
            ..Self::default()
        };
        let result = std::thread::scope(|scope| {
            for core in core_affinity::get_core_ids().unwrap_or_default() {
                let meter = &meter;
                scope.spawn(move || meter.watch(core));
            }
            let result = measured();
            meter.finished.store(true, Ordering::Relaxed);
            result
        });
        let stalled = Duration::from_nanos(meter.stalled_ns.load(Ordering::Relaxed));
        (result, stalled)
    }

    fn watch(&self, core: core_affinity::CoreId) {
        if !core_affinity::set_for_current(core) || !raise() {
            return;
        }
        while !self.finished.load(Ordering::Relaxed) {
            let slept = Instant::now();
            std::thread::sleep(TICK);
            let late = slept.elapsed().saturating_sub(TICK);
            if late >= self.shortest {
                let late = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
                self.stalled_ns.fetch_add(late, Ordering::Relaxed);
            }
        }
    }
}

fn raise() -> bool {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let Ok(value) = ThreadPriorityValue::try_from(PRIORITY) else {
        return false;
    };
    let priority = ThreadPriority::Crossplatform(value);
    let this = thread_priority::thread_native_id();
    thread_priority::set_thread_priority_and_policy(this, priority, policy).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_with_what_it_watches() {
        let (result, stalled) = StallMeter::beside(2_000, || {
            std::thread::sleep(Duration::from_millis(30));
            7
        });
        assert_eq!(result, 7);
        assert!(stalled < Duration::from_secs(60), "{stalled:?}");
    }
}
