//! How many frames a queue's fill ring is kept at: pure arithmetic.
//!
//! A frame in a fill ring cannot be taken back, so a queue gets few at first and more only when it
//! used up half of what it had; and every port yet to come keeps its minimum.

use crate::config::Tuning;

/// Queues that must always find their minimum: Kubernetes' 110 pods, the node's port and uplinks.
const QUEUES_EXPECTED: u64 = 128;

/// And however many there are, so many more: a pool that ran dry would leave busy queues without.
const QUEUES_MORE: u64 = 64;

/// Most lent to a queue that saw no packet: room for the first ten 64 KiB segments of a connection.
const FIRST_MAX: u32 = 256;

/// Limits of lending on one worker.
#[derive(Clone, Copy, Debug)]
pub struct Lending {
    idle: u32,
    active: u32,
    /// Stay for packets the pipeline builds and for transmission of what others handed over.
    reserved: u64,
}

impl Lending {
    /// Limits for `frames` in all.
    pub fn new(tuning: &Tuning, frames: u32) -> Self {
        Self {
            idle: tuning.lend_idle,
            active: tuning.lend_active.max(tuning.lend_idle),
            reserved: u64::from(frames) / 16,
        }
    }

    /// Frames that may be lent beyond the minimum of `queues` present and all expected ones, with
    /// `free` in the pool.
    pub fn spare(&self, free: usize, queues: u64) -> u32 {
        let to_come = QUEUES_EXPECTED.saturating_sub(queues).max(QUEUES_MORE);
        let expected = u64::from(self.idle) * to_come;
        (free as u64).saturating_sub(self.reserved + expected) as u32
    }

    /// What a new queue gets.
    pub fn at_first(&self, spare: u32) -> u32 {
        (spare / 16).clamp(self.idle, FIRST_MAX.max(self.idle))
    }

    /// What a queue gets that has `lend` and `left` of it: twice as much if it used up half.
    pub fn next(&self, lend: u32, left: u32, spare: u32) -> u32 {
        let wanted = if left < lend / 2 { lend * 2 } else { lend };
        let affordable = (spare / 4).max(self.at_first(spare)).min(self.active);
        wanted.min(affordable.max(self.idle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: u32 = 8_192;

    fn lending() -> Lending {
        Lending::new(&Tuning::default(), FRAMES)
    }

    #[test]
    fn a_full_node_of_busy_ports_leaves_every_port_its_minimum() {
        let lending = lending();
        let mut free = FRAMES as usize;
        let mut lent = Vec::new();
        for queues in 0..112 {
            let mut lend = lending.at_first(lending.spare(free, queues));
            free -= lend as usize;
            for _ in 0..8 {
                let next = lending.next(lend, 0, lending.spare(free, queues + 1));
                free -= next.saturating_sub(lend) as usize;
                lend = lend.max(next);
            }
            lent.push(lend);
        }
        assert!(lent.iter().all(|lend| *lend >= 32), "{lent:?}");
        assert!(free >= FRAMES as usize / 16, "{free} left");
        assert!(lent[0] >= 512, "{lent:?}");
    }

    #[test]
    fn more_ports_than_expected_leave_some_frames() {
        let lending = lending();
        let mut free = FRAMES;
        for queues in 0..140 {
            let lend = lending.at_first(lending.spare(free as usize, queues));
            free = free.checked_sub(lend).expect("the pool ran dry");
        }
    }

    #[test]
    fn a_queue_grows_under_pressure_only() {
        let lending = lending();
        assert_eq!(lending.next(32, 20, 4_000), 32);
        assert_eq!(lending.next(32, 15, 4_000), 64);
        assert_eq!(lending.next(1_024, 0, 8_000), 1_024);
        assert_eq!(lending.next(512, 0, 0), 32);
    }
}
