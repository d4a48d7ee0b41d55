//! How many frames a queue's fill ring is kept at: pure arithmetic.
//!
//! A frame in a fill ring cannot be taken back, so a pod gets few until its first packet, more while
//! it has traffic, and twice as many when it used up half; every port yet to come keeps its minimum.
//! Queues with traffic that have more than the pool can afford by now give it back as packets come.

use weft_engine::PortKind;

use crate::config::Tuning;

/// Queues that must always find their minimum: Kubernetes' 110 pods, the node's port and uplinks.
const QUEUES_EXPECTED: u64 = 128;

/// And however many there are, so many more: a pool that ran dry would leave busy queues without.
const QUEUES_MORE: u64 = 16;

/// Least lent to a queue when there are more than expected: one TCP packet of 64 KiB.
const LEAST: u32 = 18;

/// What a queue with traffic has: the first ten 64 KiB segments of a connection (its SYN came
/// before them), or 120 ms of a packet every 0.5 ms while the worker does not get its core.
const WITH_TRAFFIC: u32 = 256;

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
        let expected = u64::from(self.idle) * QUEUES_EXPECTED.saturating_sub(queues);
        let more = u64::from(LEAST) * QUEUES_MORE;
        (free as u64).saturating_sub(self.reserved + expected + more) as u32
    }

    /// What a new queue gets. To an uplink and to the node come packets from the start.
    pub fn at_first(&self, kind: PortKind, spare: u32) -> u32 {
        let minimum = self.idle.min(spare.max(LEAST));
        match kind {
            PortKind::Pod => minimum,
            PortKind::Uplink | PortKind::Node => (spare / 16).min(WITH_TRAFFIC).max(minimum),
        }
    }

    /// What a queue that got packets is given, that has `lend` and `left` of it: twice as much if
    /// it used up half.
    pub fn next(&self, lend: u32, left: u32, spare: u32) -> u32 {
        let wanted = if left < lend / 2 { lend * 2 } else { lend };
        let affordable = (spare / 4).min(self.active);
        wanted
            .max(WITH_TRAFFIC)
            .min(affordable)
            .max(self.idle.min(lend))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: u32 = 8_192;

    fn lending() -> Lending {
        Lending::new(&Tuning::default(), FRAMES)
    }

    /// What each of `ports` pods has when packets come to every one after the other, and what is free.
    fn all_get_packets(ports: u64, under_pressure: bool) -> (Vec<u32>, usize) {
        let lending = lending();
        let mut free = FRAMES as usize;
        let mut lent = Vec::new();
        for queues in 0..ports {
            let spare = lending.spare(free, queues);
            lent.push(lending.at_first(PortKind::Pod, spare));
            free -= lent[queues as usize] as usize;
        }
        for lend in &mut lent {
            for _ in 0..8 {
                let left = if under_pressure { 0 } else { *lend };
                let next = lending.next(*lend, left, lending.spare(free, ports));
                free = free + *lend as usize - next.max(*lend) as usize;
                *lend = next.max(*lend);
            }
        }
        (lent, free)
    }

    #[test]
    fn a_full_node_of_busy_ports_leaves_every_port_its_minimum() {
        let (lent, free) = all_get_packets(112, true);
        assert!(lent.iter().all(|lend| *lend >= 32), "{lent:?}");
        assert!(free >= FRAMES as usize / 16, "{free} left");
        assert!(lent[0] >= 512, "{lent:?}");
    }

    #[test]
    fn among_200_ports_the_first_with_traffic_get_what_a_stall_needs() {
        let (lent, free) = all_get_packets(200, false);
        assert!(lent[..4].iter().all(|lend| *lend >= 96), "{lent:?}");
        assert!(lent.iter().all(|lend| *lend >= 32), "{lent:?}");
        assert!(free >= FRAMES as usize / 16, "{free} left");
    }

    #[test]
    fn ports_beyond_all_expected_still_get_a_whole_segment() {
        let (lent, free) = all_get_packets(250, false);
        assert!(lent.iter().all(|lend| *lend >= LEAST), "{lent:?}");
        assert!(free >= FRAMES as usize / 32, "{free} left");
    }

    #[test]
    fn an_uplink_gets_more_from_the_start() {
        let lending = lending();
        assert_eq!(lending.at_first(PortKind::Uplink, 8_000), WITH_TRAFFIC);
        assert_eq!(lending.at_first(PortKind::Uplink, 0), LEAST);
        assert_eq!(lending.at_first(PortKind::Pod, 8_000), 32);
    }

    #[test]
    fn a_queue_grows_with_its_first_packet_and_then_under_pressure() {
        let lending = lending();
        assert_eq!(lending.next(32, 31, 4_000), WITH_TRAFFIC);
        assert_eq!(lending.next(256, 200, 4_000), 256);
        assert_eq!(lending.next(256, 100, 4_000), 512);
        assert_eq!(lending.next(1_024, 0, 8_000), 1_024);
        assert_eq!(lending.next(512, 0, 0), 32);
    }
}
