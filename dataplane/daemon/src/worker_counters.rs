//! A worker's counters: written by it alone, read by the control side through one shared block.

use std::sync::Arc;

use weft_engine::table::flow::FlowCounters;
use weft_engine::{Counters, DropReason, Outcome, Stage};
use weft_snapshot::SharedCounters;

/// The worker's own counters, before the pipeline's in the block.
const OWN: usize = 4;
const STAGES_AT: usize = OWN;
const OUTCOMES_AT: usize = STAGES_AT + Stage::COUNT;
const DROPS_AT: usize = OUTCOMES_AT + Outcome::COUNT;

const FLOWS_AT: usize = DROPS_AT + DropReason::COUNT;

/// Slots of a worker's block.
pub const WORKER_COUNTERS: usize = FLOWS_AT + FlowCounters::NAMES.len();

/// A worker's own counters between two publications.
pub struct WorkerCounters {
    /// Rounds that found packets.
    pub busy_loops: u64,
    /// Waits for the kernel.
    pub sleeps: u64,
    /// Packets given to another worker.
    pub handoffs: u64,
    /// Queues served.
    pub queues: u64,
    shared: Arc<SharedCounters>,
}

/// All of a worker's counters, read from outside.
#[derive(Clone, Debug, Default)]
pub struct WorkerReading {
    /// Rounds that found packets.
    pub busy_loops: u64,
    /// Waits for the kernel.
    pub sleeps: u64,
    /// Packets given to another worker.
    pub handoffs: u64,
    /// Queues served.
    pub queues: u64,
    /// Packets by [`Stage`].
    pub stages: Vec<u64>,
    /// Packets by [`Outcome`].
    pub outcomes: Vec<u64>,
    /// Drops by [`DropReason`].
    pub drops: Vec<u64>,
    /// Connections, as [`FlowCounters::values`].
    pub flows: Vec<u64>,
}

impl WorkerCounters {
    /// Counters that are shown in `shared`, a block of [`WORKER_COUNTERS`].
    pub fn new(shared: Arc<SharedCounters>) -> Self {
        Self {
            busy_loops: 0,
            sleeps: 0,
            handoffs: 0,
            queues: 0,
            shared,
        }
    }

    /// Shows everything to readers.
    pub fn publish(&self, pipeline: &Counters) {
        self.shared
            .store_all(&[self.busy_loops, self.sleeps, self.handoffs, self.queues]);
        let show = |at: usize, values: &[u64]| {
            for (index, value) in values.iter().enumerate() {
                self.shared.store(at + index, *value);
            }
        };
        show(STAGES_AT, &pipeline.stages);
        show(OUTCOMES_AT, &pipeline.outcomes);
        show(DROPS_AT, &pipeline.drops);
        show(FLOWS_AT, &pipeline.flows.values());
    }
}

impl WorkerReading {
    /// Reads a worker's block.
    pub fn of(shared: &SharedCounters) -> Self {
        let range =
            |from: usize, len: usize| (from..from + len).map(|index| shared.load(index)).collect();
        Self {
            busy_loops: shared.load(0),
            sleeps: shared.load(1),
            handoffs: shared.load(2),
            queues: shared.load(3),
            stages: range(STAGES_AT, Stage::COUNT),
            outcomes: range(OUTCOMES_AT, Outcome::COUNT),
            drops: range(DROPS_AT, DropReason::COUNT),
            flows: range(FLOWS_AT, FlowCounters::NAMES.len()),
        }
    }
}
