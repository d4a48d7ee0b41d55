//! The sending half of a worker: its queues, its free frames, and the rings to the other workers.
//! Together with the loop in `worker.rs` this is where every ring call of the packet path is.

use std::sync::Arc;

use weft_engine::{Batch, Checksum, Counters, DropReason, Packet, PortId, PortKind, Verdict};
use weft_xsk::{FrameChain, FramePool, Kick, TxChecksum, Umem};

use crate::handoff::{Handoff, Handoffs};
use crate::queue::{Queue, QueueCounter};
use crate::snapshot::Snapshot;
use crate::tap::Tap;
use crate::worker_counters::WorkerCounters;

/// What a worker sends with.
pub struct Egress {
    /// Worker number.
    pub id: u16,
    /// The frames.
    pub umem: Arc<Umem>,
    /// Those free to this worker.
    pub pool: FramePool,
    /// Queues by slot.
    pub queues: Vec<Option<Box<Queue>>>,
    /// Slots whose transmit ring the kernel was not told of.
    pub dirty: Vec<u16>,
    /// Rings to and from the other workers.
    pub handoffs: Handoffs,
    /// Captures under way.
    pub taps: Vec<Tap>,
    /// Counters.
    pub counters: WorkerCounters,
}

impl Egress {
    /// The queue in `slot`.
    pub fn queue(&mut self, slot: u16) -> Option<&mut Queue> {
        self.queues.get_mut(usize::from(slot))?.as_deref_mut()
    }

    /// Sends or frees every packet of the batch and leaves it empty. What cannot be sent is counted
    /// in `counters`, the pipeline's.
    pub fn dispatch(
        &mut self,
        batch: &mut Batch,
        snapshot: &Snapshot,
        counters: &mut Counters,
        now_ns: u64,
    ) {
        for packet in batch.all_mut() {
            match packet.verdict {
                Verdict::Tx(port) => self.send(snapshot, port, packet, counters, now_ns),
                Verdict::Drop(_) => self.pool.free_chain(&mut packet.frames),
                Verdict::Consumed => debug_assert!(
                    packet.frames.is_empty(),
                    "a consumed packet keeps no frames"
                ),
                Verdict::Pending => unreachable!("the pipeline gives every packet a verdict"),
            }
        }
        batch.recycle(&mut self.pool);
    }

    fn send(
        &mut self,
        snapshot: &Snapshot,
        port: PortId,
        packet: &mut Packet,
        counters: &mut Counters,
        now_ns: u64,
    ) {
        let lost = match snapshot.egress(self.id, port) {
            Some(egress) if egress.worker == self.id => {
                let frames = &mut packet.frames;
                self.transmit(egress.slot, frames, packet.checksum, now_ns)
                    .err()
            }
            Some(egress) => {
                let frames = std::mem::take(&mut packet.frames);
                let handoff = Handoff {
                    slot: egress.slot,
                    frames,
                    checksum: packet.checksum,
                };
                match self.handoffs.send(egress.worker, handoff) {
                    Ok(()) => {
                        self.counters.handoffs += 1;
                        None
                    }
                    Err(back) => {
                        packet.frames = back.frames;
                        Some(DropReason::TxOther)
                    }
                }
            }
            None => Some(DropReason::PortGone),
        };
        if let Some(reason) = lost {
            let node_port = snapshot.tables.node().and_then(|node| node.node_port);
            counters.dropped_late(node_port == Some(port), reason);
            self.pool.free_chain(&mut packet.frames);
        }
    }

    /// Puts a packet into a transmit ring; when it is full the kernel is told to empty it first.
    ///
    /// # Errors
    /// Why it could not be sent; the frames are still the caller's.
    fn transmit(
        &mut self,
        slot: u16,
        frames: &mut FrameChain,
        checksum: Checksum,
        now_ns: u64,
    ) -> Result<(), DropReason> {
        let Some(queue) = self
            .queues
            .get_mut(usize::from(slot))
            .and_then(Option::as_mut)
        else {
            return Err(DropReason::PortGone);
        };
        let bytes = frames.iter().map(|frame| frame.len() as u64).sum();
        for tap in &mut self.taps {
            tap.record_sent(queue.port, frames, &self.umem, now_ns);
        }
        let checksum = match checksum {
            Checksum::None => None,
            Checksum::Partial { start, offset } => Some(TxChecksum { start, offset }),
        };
        if !queue.socket.transmit(&self.umem, frames, checksum) {
            let refused = queue.socket.counters().tx_refused;
            queue.socket.kick();
            queue.socket.complete(&self.umem, &mut self.pool);
            if !queue.socket.transmit(&self.umem, frames, checksum) {
                let again = queue.socket.counters().tx_refused != refused;
                queue.count(QueueCounter::TxRingFull, u64::from(!again));
                return Err(if again {
                    DropReason::TxRefused
                } else {
                    DropReason::TxRingFull
                });
            }
        }
        queue.count(QueueCounter::TxPackets, 1);
        queue.count(QueueCounter::TxBytes, bytes);
        if !queue.dirty {
            queue.dirty = true;
            self.dirty.push(slot);
        }
        Ok(())
    }

    /// Sends what other workers handed over; true when there was something.
    pub fn take_handoffs(&mut self, counters: &mut Counters, now_ns: u64) -> bool {
        let mut worked = false;
        while let Some(mut handoff) = self.handoffs.receive() {
            worked = true;
            let slot = handoff.slot;
            if let Err(reason) = self.transmit(slot, &mut handoff.frames, handoff.checksum, now_ns)
            {
                let host = self
                    .queue(slot)
                    .is_some_and(|queue| queue.kind == PortKind::Node);
                counters.dropped_late(host, reason);
                self.pool.free_chain(&mut handoff.frames);
            }
        }
        worked
    }

    /// Tells the kernel about everything put into transmit rings in this round, once per queue, and
    /// takes the sent frames back. A queue whose ring is not empty afterwards stays dirty.
    pub fn kick(&mut self) {
        let mut index = 0;
        while index < self.dirty.len() {
            let slot = self.dirty[index];
            let Some(queue) = self
                .queues
                .get_mut(usize::from(slot))
                .and_then(Option::as_mut)
            else {
                self.dirty.swap_remove(index);
                continue;
            };
            let again = queue.socket.kick() == Kick::Again;
            queue.socket.complete(&self.umem, &mut self.pool);
            if again && queue.socket.tx_pending() {
                index += 1;
            } else {
                queue.dirty = false;
                self.dirty.swap_remove(index);
            }
        }
    }
}
