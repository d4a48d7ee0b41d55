//! The sending half of a worker: its queues, its free frames, and the rings to the other workers.
//! Together with the loop in `worker.rs` this is where every ring call of the packet path is.

use std::sync::Arc;

use weft_engine::{
    BATCH_FRAMES_MAX, Batch, Checksum, Counters, DropReason, Packet, PortId, PortKind, Verdict,
};
use weft_xsk::{CHAIN_MAX, FrameChain, FramePool, Gso, Kick, Umem};

use crate::burst::Burst;
use crate::handoff::{Handoff, Handoffs, Next};
use crate::queue::Queue;
use crate::snapshot::Snapshot;
use crate::tap::Tap;
use crate::worker_counters::WorkerCounters;

/// What the kernel is to be told of a packet beside its bytes.
#[derive(Clone, Copy, Default)]
pub struct Sending {
    /// Checksum to complete.
    pub checksum: Checksum,
    /// What it is to be segmented into.
    pub gso: Option<Gso>,
    /// See [`Packet::tunnel_flow`].
    pub tunnel_flow: u64,
}

impl Sending {
    fn of(packet: &Packet) -> Self {
        Self {
            checksum: packet.checksum,
            gso: packet.gso,
            tunnel_flow: packet.tunnel_flow,
        }
    }
}

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
    /// Tunnel packets that wait for more of their kind.
    pub burst: Burst,
    /// Tunnel packets of a burst that could not be sent, not yet counted as dropped.
    pub late_drops: u64,
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
        batch.for_each_in_order(|packet| match packet.verdict {
            Verdict::Tx(port) => self.send(snapshot, port, packet, counters, now_ns),
            Verdict::Drop(_) => self.pool.free_chain(&mut packet.frames),
            Verdict::HandOver(worker) => {
                if self.hand_over(worker, packet, Next::Resume).is_err() {
                    counters.dropped_at_handover();
                    self.pool.free_chain(&mut packet.frames);
                }
            }
            Verdict::Consumed | Verdict::Merged => debug_assert!(
                packet.frames.is_empty(),
                "a consumed packet keeps no frames"
            ),
            Verdict::Pending => unreachable!("the pipeline gives every packet a verdict"),
        });
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
        let sent = match snapshot.egress(self.id, port) {
            Some(egress) if egress.worker == self.id => {
                let sending = Sending::of(packet);
                self.transmit(egress.slot, &mut packet.frames, sending, now_ns)
            }
            Some(egress) => self.hand_over(egress.worker, packet, Next::Send(egress.slot)),
            None => Err(DropReason::PortGone),
        };
        if let Err(reason) = sent {
            let node_port = snapshot.tables.node().and_then(|node| node.node_port);
            counters.dropped_late(node_port == Some(port), reason);
            self.pool.free_chain(&mut packet.frames);
        }
    }

    /// Gives a packet to another worker. When that has no room the packet stays with the caller.
    fn hand_over(
        &mut self,
        worker: u16,
        packet: &mut Packet,
        next: Next,
    ) -> Result<(), DropReason> {
        let handoff = Handoff {
            packet: std::mem::take(packet),
            next,
        };
        match self.handoffs.send(worker, handoff) {
            Ok(()) => {
                self.counters.handoffs += 1;
                Ok(())
            }
            Err(back) => {
                *packet = back.packet;
                Err(DropReason::TxOther)
            }
        }
    }

    /// Sends a packet by a queue of this worker, or lets it wait for more of its tunnel flow. When it cannot be sent
    /// the frames are left to the caller.
    fn transmit(
        &mut self,
        slot: u16,
        frames: &mut FrameChain,
        sending: Sending,
        now_ns: u64,
    ) -> Result<(), DropReason> {
        let Self {
            queues,
            pool,
            umem,
            taps,
            dirty,
            ..
        } = self;
        let Some(queue) = queues.get_mut(usize::from(slot)).and_then(Option::as_mut) else {
            return Err(DropReason::PortGone);
        };
        for tap in taps {
            tap.record_sent(queue.port, frames, umem, now_ns);
        }
        if sending.tunnel_flow != 0 && queue.packet_socket.is_some() {
            self.gather(slot, frames, sending.tunnel_flow);
            return Ok(());
        }
        let was_dirty = queue.dirty;
        let sent = queue.send(umem, pool, frames, sending);
        if queue.dirty && !was_dirty {
            dirty.push(slot);
        }
        sent
    }

    /// Adds a tunnel packet to the burst; one it cannot join is sent first.
    fn gather(&mut self, slot: u16, frames: &mut FrameChain, tunnel_flow: u64) {
        let len = frames.iter().map(weft_xsk::Frame::len).sum();
        if !self.burst.takes(slot, tunnel_flow, len, frames.len()) {
            self.send_burst();
        }
        let frames = std::mem::take(frames);
        self.burst.push(slot, tunnel_flow, len, frames);
    }

    /// Sends what was gathered.
    fn send_burst(&mut self) {
        let Self {
            queues,
            pool,
            umem,
            burst,
            dirty,
            ..
        } = self;
        let slot = burst.slot();
        let Some(queue) = queues.get_mut(usize::from(slot)).and_then(Option::as_mut) else {
            self.late_drops += burst.len() as u64;
            return burst.free(pool);
        };
        let was_dirty = queue.dirty;
        self.late_drops += queue.send_burst(umem, pool, burst);
        if queue.dirty && !was_dirty {
            dirty.push(slot);
        }
    }

    /// Sends what other workers handed over to be sent, until there is no more or `batch` is full of what
    /// they handed over to be resumed. Returns the frames of all of it.
    pub fn take_handoffs(
        &mut self,
        batch: &mut Batch,
        counters: &mut Counters,
        now_ns: u64,
    ) -> u64 {
        let (mut taken, mut gathered) = (0, 0);
        while !batch.packets.is_full()
            && gathered + CHAIN_MAX <= BATCH_FRAMES_MAX
            && let Some(Handoff { mut packet, next }) = self.handoffs.receive()
        {
            taken += packet.frames.len() as u64;
            match next {
                Next::Resume => {
                    gathered += packet.frames.len();
                    packet.verdict = Verdict::Pending;
                    batch.packets.push(packet);
                }
                Next::Send(slot) => self.send_for_another(slot, &mut packet, counters, now_ns),
                Next::Keep => self.pool.free_chain(&mut packet.frames),
            }
        }
        taken
    }

    fn send_for_another(
        &mut self,
        slot: u16,
        packet: &mut Packet,
        counters: &mut Counters,
        now_ns: u64,
    ) {
        let sending = Sending::of(packet);
        if let Err(reason) = self.transmit(slot, &mut packet.frames, sending, now_ns) {
            let host = self
                .queue(slot)
                .is_some_and(|queue| queue.kind == PortKind::Node);
            counters.dropped_late(host, reason);
            self.pool.free_chain(&mut packet.frames);
        }
    }

    /// Tells the kernel about everything put into transmit rings in this round, once per queue, and
    /// takes the sent frames back. A queue whose ring is not empty afterwards stays dirty.
    pub fn kick(&mut self, counters: &mut Counters) {
        if self.burst.len() > 0 {
            self.send_burst();
        }
        for _ in 0..std::mem::take(&mut self.late_drops) {
            counters.dropped_late(false, DropReason::TxRingFull);
        }
        self.handoffs.give_back(&mut self.pool);
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
