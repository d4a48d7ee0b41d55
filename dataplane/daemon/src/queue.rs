//! One bound (port, queue) as its worker holds it.

use std::sync::Arc;

use weft_engine::{BATCH_FRAMES_MAX, PortId, PortKind};
use weft_snapshot::SharedCounters;
use weft_xsk::{FramePool, PacketSocket, Socket, Umem};

use crate::lending::Lending;

/// Counters of a queue, by their place in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum QueueCounter {
    /// Packets received.
    RxPackets,
    /// Bytes received.
    RxBytes,
    /// Packets sent.
    TxPackets,
    /// Bytes sent.
    TxBytes,
    /// Packets received here and dropped by the pipeline.
    Drops,
    /// Packets dropped because the transmit ring stayed full.
    TxRingFull,
    /// Packets the kernel dropped before they reached us because no frame or ring slot was free.
    KernelDrops,
}

/// Number of [`QueueCounter`]s.
pub const QUEUE_COUNTERS: usize = 7;

/// What a queue sends and receives with, and where its counters are shown.
pub struct Mapped {
    /// The AF_XDP socket.
    pub socket: Socket,
    /// The port's packet socket, if it has one.
    pub packet_socket: Option<PacketSocket>,
    /// A block of [`QUEUE_COUNTERS`].
    pub counters: Arc<SharedCounters>,
}

/// A queue: its sockets, what it may borrow, and its counters.
pub struct Queue {
    /// The port it belongs to.
    pub port: PortId,
    /// What the port is.
    pub kind: PortKind,
    /// The AF_XDP socket.
    pub socket: Socket,
    /// Sends what AF_XDP cannot: GSO packets.
    pub packet_socket: Option<PacketSocket>,
    /// Frames the fill ring is kept at.
    pub lend: u32,
    /// When the last packet was received, in the worker's clock.
    pub last_rx_ns: u64,
    /// Served in every round; else armed in the waiter.
    pub active: bool,
    /// Has unsent descriptors the kernel was not told of.
    pub dirty: bool,
    local: [u64; QUEUE_COUNTERS],
    shared: Arc<SharedCounters>,
}

impl Queue {
    /// A queue of a port, not yet active, lending `lend` frames.
    pub fn new(port: PortId, kind: PortKind, mapped: Mapped, lend: u32) -> Self {
        let mut socket = mapped.socket;
        socket.set_burst_frames(BATCH_FRAMES_MAX as u32);
        Self {
            port,
            kind,
            socket,
            packet_socket: mapped.packet_socket,
            lend,
            last_rx_ns: 0,
            active: false,
            dirty: false,
            local: [0; QUEUE_COUNTERS],
            shared: mapped.counters,
        }
    }

    /// Adds to a counter; readers see it after [`Queue::publish`].
    pub fn count(&mut self, counter: QueueCounter, n: u64) {
        self.local[counter as usize] += n;
    }

    /// Shows the counters to readers.
    pub fn publish(&self) {
        self.shared.store_all(&self.local);
    }

    /// Asks the kernel what it dropped: a system call, made only when somebody wants to know.
    pub fn read_kernel_counters(&mut self) {
        if let Ok(kernel) = self.socket.statistics() {
            // A packet that finds the fill ring empty counts here and as rx_fill_ring_empty_descs.
            let dropped = kernel.rx_dropped + kernel.rx_ring_full;
            self.local[QueueCounter::KernelDrops as usize] = dropped;
        }
    }

    /// Raises what it may borrow when the last burst used up much of it, and lowers it when frames
    /// run short.
    pub fn ask_for_more(&mut self, spare: u32, lending: &Lending) {
        self.lend = lending.next(self.lend, self.socket.fill_level(), spare);
    }

    /// Makes the kernel send what is in the transmit ring, so that what goes another way does not overtake it.
    pub fn drain_ring(&mut self) {
        if self.dirty {
            self.socket.kick();
        }
    }

    /// Takes back sent frames and lends new ones to the kernel.
    pub fn replenish(&mut self, umem: &Umem, pool: &mut FramePool) {
        if self.socket.tx_outstanding() > 0 {
            self.socket.complete(umem, pool);
        }
        // A quarter is the batch: fewer, larger refills touch the ring's cache lines less often.
        if self.socket.fill_level() < self.lend - self.lend / 4 {
            self.socket.refill(umem, pool, self.lend);
        }
    }
}
