//! One bound (device, queue): its four rings as a worker uses them.
//!
//! In a worker's round: [`Socket::complete`], [`Socket::refill`], [`Socket::receive`], the pipeline,
//! [`Socket::transmit`] per packet, [`Socket::kick`]. None of them allocates, and only `kick` and `wake_rx` make a
//! system call.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::fault;
use crate::frame::{
    CHAIN_MAX, FRAME_BYTES, Frame, FrameChain, FrameId, TX_METADATA_BYTES, count_leaked,
};
use crate::memory::Memory;
use crate::owner::{Owner, Owners, RING_MAX};
use crate::pool::FramePool;
use crate::ring::{Consumer, Descriptor, Pass, Producer, Ring};
use crate::sim::SimEndpoint;
use crate::sys::{self, MmapOffsets, RingOffsets};
use crate::umem::Umem;

/// Slots of the four rings: powers of two, at most [`RING_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSizes {
    /// Fill ring.
    pub fill: u32,
    /// Receive ring.
    pub rx: u32,
    /// Transmit ring.
    pub tx: u32,
    /// Completion ring; at least as large as `tx`, else sending stalls on it.
    pub completion: u32,
}

impl RingSizes {
    /// All four of one size.
    pub const fn uniform(size: u32) -> Self {
        Self {
            fill: size,
            rx: size,
            tx: size,
            completion: size,
        }
    }

    fn check(self) -> Result<Self, SocketError> {
        for size in [self.fill, self.rx, self.tx, self.completion] {
            if !size.is_power_of_two() || size > RING_MAX {
                return Err(SocketError::RingSize(size));
            }
        }
        Ok(self)
    }
}

impl Default for RingSizes {
    /// 2048: a burst of 113 packets of 64 KiB; 96 KiB of kernel memory per port.
    fn default() -> Self {
        Self::uniform(2048)
    }
}

/// Why a socket's rings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Not a power of two, or too large for the owner table's positions.
    #[error("{0} ring slots: a power of two up to {RING_MAX} is needed")]
    RingSize(u32),
    /// The descriptor is not an AF_XDP socket.
    #[error("asking for the place of the rings: {0}")]
    Offsets(io::Error),
    /// A ring is smaller than said, absent, or the kernel (before 6.4) does not map rings of a bound socket.
    #[error("mapping the {ring} ring: {source}")]
    Map {
        /// Which.
        ring: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Asks the kernel to treat a packet's checksum as partial: the receiver takes it as good (veth), or the device
/// computes it from `start` to the end and stores it at `start + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxChecksum {
    /// First byte the sum covers, from the packet's start.
    pub start: u16,
    /// Where the sum goes, from `start`.
    pub offset: u16,
}

/// `struct xsk_tx_metadata` as of 6.13; libc's is without `launch_time`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct TxMetadata {
    pub(crate) flags: u64,
    pub(crate) checksum_start: u16,
    pub(crate) checksum_offset: u16,
    pub(crate) pad: u32,
    pub(crate) launch_time: u64,
}

const _: () = assert!(size_of::<TxMetadata>() == TX_METADATA_BYTES);

impl TxMetadata {
    /// XDP_TXMD_FLAGS_CHECKSUM.
    pub(crate) const CHECKSUM: u64 = 1 << 1;

    fn checksum(checksum: TxChecksum) -> Self {
        let TxChecksum { start, offset } = checksum;
        Self {
            flags: Self::CHECKSUM,
            checksum_start: start,
            checksum_offset: offset,
            pad: 0,
            launch_time: 0,
        }
    }
}

/// `struct xdp_statistics`: what the kernel counted for one socket.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct XdpStatistics {
    /// Dropped for other reasons, such as packets too long for the rings.
    pub rx_dropped: u64,
    /// Fill ring addresses outside the memory.
    pub rx_invalid_descs: u64,
    /// Transmit descriptors the kernel refused.
    pub tx_invalid_descs: u64,
    /// Packets dropped for want of receive ring slots.
    pub rx_ring_full: u64,
    /// Times the fill ring was empty when a packet came.
    pub rx_fill_ring_empty_descs: u64,
    /// Times the transmit ring was found empty.
    pub tx_ring_empty_descs: u64,
}

/// What went wrong at this socket, since it was mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketCounters {
    /// Received descriptors of frames this port had not lent, or outside their chunk; ignored.
    pub rx_foreign: u64,
    /// Packets of more than [`CHAIN_MAX`] frames; dropped.
    pub rx_oversized: u64,
    /// Chains that can never be sent: empty, an empty frame, no room for metadata, checksum outside the first frame.
    pub tx_refused: u64,
    /// Completed addresses of frames this port had not sent; ignored.
    pub completion_foreign: u64,
    /// Kicks the kernel refused for a reason other than being busy.
    pub kick_errors: u64,
}

/// What came of [`Socket::kick`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kick {
    /// Nothing to send, or the driver is at it.
    Idle,
    /// The kernel took what was there.
    Sent,
    /// The kernel took a part (its budget, or its buffers, are used up): kick again.
    Again,
    /// The device is down or gone.
    Down,
}

/// One bound (device, queue).
pub struct Socket {
    endpoint: Endpoint,
    rx: Consumer<Descriptor>,
    tx: Producer<Descriptor>,
    pub(crate) fill: Producer<u64>,
    completion: Consumer<u64>,
    port: u16,
    sizes: RingSizes,
    multi_buffer: bool,
    tx_metadata: bool,
    /// In the middle of a packet whose beginning was thrown away.
    discarding: bool,
    /// Frames of packets thrown away, to be lent again first.
    spare: Vec<FrameId>,
    counters: SocketCounters,
}

enum Endpoint {
    Kernel(OwnedFd),
    Simulated(SimEndpoint),
}

/// The rings of one socket.
#[derive(Clone)]
pub(crate) struct Rings {
    pub(crate) rx: Ring<Descriptor>,
    pub(crate) tx: Ring<Descriptor>,
    pub(crate) fill: Ring<u64>,
    pub(crate) completion: Ring<u64>,
}

impl Rings {
    pub(crate) fn heap(sizes: RingSizes) -> Self {
        Self {
            rx: Ring::heap(sizes.rx),
            tx: Ring::heap(sizes.tx),
            fill: Ring::heap(sizes.fill),
            completion: Ring::heap(sizes.completion),
        }
    }

    fn map(fd: BorrowedFd<'_>, sizes: RingSizes) -> Result<Self, SocketError> {
        let offsets: MmapOffsets = sys::get_option(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS)
            .map_err(SocketError::Offsets)?;
        Ok(Self {
            rx: map_ring(
                fd,
                "receive",
                &offsets.rx,
                sizes.rx,
                libc::XDP_PGOFF_RX_RING as u64,
            )?,
            tx: map_ring(
                fd,
                "transmit",
                &offsets.tx,
                sizes.tx,
                libc::XDP_PGOFF_TX_RING as u64,
            )?,
            fill: map_ring(
                fd,
                "fill",
                &offsets.fill,
                sizes.fill,
                libc::XDP_UMEM_PGOFF_FILL_RING,
            )?,
            completion: map_ring(
                fd,
                "completion",
                &offsets.completion,
                sizes.completion,
                libc::XDP_UMEM_PGOFF_COMPLETION_RING,
            )?,
        })
    }
}

fn map_ring<T: Copy + FromBytes>(
    fd: BorrowedFd<'_>,
    ring: &'static str,
    offsets: &RingOffsets,
    size: u32,
    page_offset: u64,
) -> Result<Ring<T>, SocketError> {
    let bytes = Ring::<T>::mapped_bytes(offsets, size);
    let memory =
        Memory::map(fd, bytes, page_offset).map_err(|source| SocketError::Map { ring, source })?;
    Ok(Ring::over(Arc::new(memory), offsets, size))
}

impl Socket {
    /// Takes up a bound socket, new or left by a process that is gone: its rings go on where they are. The frames in
    /// them are told by the owner table, which [`crate::recover()`] reads.
    ///
    /// # Errors
    /// When `fd` is not an AF_XDP socket with rings of these sizes.
    pub fn map(fd: OwnedFd, sizes: RingSizes) -> Result<Self, SocketError> {
        let rings = Rings::map(fd.as_fd(), sizes.check()?)?;
        Ok(Self::over(Endpoint::Kernel(fd), rings, sizes))
    }

    pub(crate) fn simulated_over(endpoint: SimEndpoint, rings: Rings, sizes: RingSizes) -> Self {
        Self::over(Endpoint::Simulated(endpoint), rings, sizes)
    }

    fn over(endpoint: Endpoint, rings: Rings, sizes: RingSizes) -> Self {
        Self {
            endpoint,
            rx: Consumer::new(rings.rx),
            tx: Producer::new(rings.tx),
            fill: Producer::new(rings.fill),
            completion: Consumer::new(rings.completion),
            port: 0,
            sizes,
            multi_buffer: true,
            tx_metadata: true,
            discarding: false,
            spare: Vec::with_capacity((sizes.fill + sizes.rx) as usize),
            counters: SocketCounters::default(),
        }
    }

    /// Names the socket in the owner table. The number is unique among the sockets over one memory, is the same for
    /// each process that takes up this socket, and is set before the first other call.
    pub fn set_port(&mut self, port: u16) {
        self.port = port;
    }

    /// The number in the owner table.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Says whether the memory was registered with room for TX metadata ([`crate::Bound::tx_metadata`]).
    pub fn set_tx_metadata(&mut self, present: bool) {
        self.tx_metadata = present;
    }

    /// True when [`Socket::transmit`] can take a [`TxChecksum`].
    pub fn tx_metadata(&self) -> bool {
        self.tx_metadata
    }

    /// Says whether packets of several frames can be sent ([`crate::Bound::multi_buffer`]).
    pub fn set_multi_buffer(&mut self, present: bool) {
        self.multi_buffer = present;
    }

    /// True when packets of several frames can be sent.
    pub fn multi_buffer(&self) -> bool {
        self.multi_buffer
    }

    /// Sizes of its rings.
    pub fn sizes(&self) -> RingSizes {
        self.sizes
    }

    /// Hands up to `packets` whole packets to `sink` and returns how many.
    ///
    /// A packet of more than [`CHAIN_MAX`] frames is dropped and counted; one not yet complete stays in the ring.
    #[inline]
    pub fn receive(
        &mut self,
        umem: &Umem,
        packets: usize,
        sink: &mut impl FnMut(FrameChain),
    ) -> usize {
        if let Endpoint::Simulated(endpoint) = &self.endpoint {
            endpoint.quiet();
        }
        let mut taker = Taker {
            umem,
            owners: umem.owners(),
            port: self.port,
            spare: &mut self.spare,
            counters: &mut self.counters,
        };
        let mut pass = self.rx.pass();
        let mut left = pass.available();
        let mut received = 0;
        while received < packets && left > 0 {
            if self.discarding {
                let descriptor = pass.next();
                left -= 1;
                taker.discard(descriptor);
                self.discarding = descriptor.continues();
                continue;
            }
            match span(&pass, left, self.sizes.rx) {
                Span::Whole(frames) => {
                    left -= frames;
                    if let Some(chain) = taker.take(&mut pass, frames) {
                        received += 1;
                        sink(chain);
                    }
                }
                Span::TooLong => {
                    taker.counters.rx_oversized += 1;
                    self.discarding = true;
                }
                Span::Incomplete => break,
            }
        }
        received
    }

    /// Puts a packet into the transmit ring: all of its frames, or none.
    ///
    /// True: the chain is empty now. False: it is untouched, because the ring has no room for it, or because it can
    /// never be sent (counted as `tx_refused`). The kernel sends when kicked.
    #[inline]
    pub fn transmit(
        &mut self,
        umem: &Umem,
        chain: &mut FrameChain,
        checksum: Option<TxChecksum>,
    ) -> bool {
        if !self.can_send(chain, checksum) {
            self.counters.tx_refused += 1;
            return false;
        }
        let frames = chain.len() as u32;
        if self.tx.room(frames) < frames {
            return false;
        }
        let mut options = 0;
        if let Some(checksum) = checksum {
            umem.front_mut::<TX_METADATA_BYTES>(&mut chain[0])
                .copy_from_slice(TxMetadata::checksum(checksum).as_bytes());
            options = Descriptor::HAS_METADATA;
        }
        let owners = umem.owners();
        let mut left = frames;
        for frame in chain.drain(..) {
            left -= 1;
            let continues = if left > 0 { Descriptor::CONTINUES } else { 0 };
            let address = umem.address(frame.id(), frame.offset());
            let descriptor = Descriptor {
                address,
                len: frame.len() as u32,
                options: options | continues,
            };
            let id = frame.surrender();
            options = 0;
            // This order, then `publish`: see `owner`.
            let position = self.tx.put(descriptor);
            fault::point();
            owners.set(id, Owner::tx(self.port, position));
            fault::point();
        }
        self.tx.publish();
        fault::point();
        true
    }

    /// A descriptor the kernel finds invalid would never be completed, and a checksum outside the packet's first
    /// frame makes it stop at that packet for good (xsk_build_skb in net/xdp/xsk.c): neither may enter the ring.
    #[inline]
    fn can_send(&self, chain: &FrameChain, checksum: Option<TxChecksum>) -> bool {
        let reserve = if self.tx_metadata {
            TX_METADATA_BYTES
        } else {
            0
        };
        let frames_fit = chain
            .iter()
            .all(|frame| !frame.is_empty() && frame.offset() >= reserve);
        let checksum_fits = checksum.is_none_or(|TxChecksum { start, offset }| {
            let end = usize::from(start) + usize::from(offset) + 2;
            self.tx_metadata && chain.first().is_some_and(|frame| end <= frame.len())
        });
        !chain.is_empty() && (chain.len() == 1 || self.multi_buffer) && frames_fit && checksum_fits
    }

    /// Takes back the frames the kernel has sent, and returns how many.
    #[inline]
    pub fn complete(&mut self, umem: &Umem, pool: &mut FramePool) -> usize {
        let owners = umem.owners();
        let mut pass = self.completion.pass();
        let mut completed = 0;
        for _ in 0..pass.available() {
            let address = pass.next();
            let lent = umem.id_of(address).filter(
                |id| matches!(owners.get(*id), Owner::Tx { port, .. } if port == self.port),
            );
            let Some(id) = lent else {
                self.counters.completion_foreign += 1;
                continue;
            };
            owners.set(id, Owner::Worker);
            fault::point();
            pool.put(id);
            completed += 1;
        }
        completed
    }

    /// Lends frames to the kernel until `target` are in the fill ring, and returns how many it took.
    #[inline]
    pub fn refill(&mut self, umem: &Umem, pool: &mut FramePool, target: u32) -> usize {
        let missing = target
            .min(self.sizes.fill)
            .saturating_sub(self.fill.level());
        let wanted = missing.min(self.fill.room(missing));
        let owners = umem.owners();
        let mut lent = 0;
        while lent < wanted {
            let Some(id) = self.spare.pop().or_else(|| pool.take()) else {
                break;
            };
            // This order, then `publish`: see `owner`.
            let position = self.fill.put(umem.address(id, 0));
            fault::point();
            owners.set(id, Owner::fill(self.port, position));
            fault::point();
            lent += 1;
        }
        if lent > 0 {
            self.fill.publish();
            fault::point();
        }
        lent as usize
    }

    /// Frames in the fill ring.
    #[inline]
    pub fn fill_level(&self) -> u32 {
        self.fill.level()
    }

    /// True when a descriptor waits in the receive ring.
    #[inline]
    pub fn rx_ready(&mut self) -> bool {
        self.rx.available() > 0
    }

    /// Free slots of the transmit ring.
    #[inline]
    pub fn tx_room(&mut self) -> u32 {
        self.tx.room(u32::MAX)
    }

    /// True when the kernel has not yet taken all descriptors.
    #[inline]
    pub fn tx_pending(&self) -> bool {
        self.tx.level() > 0
    }

    /// Frames lent for sending that [`Socket::complete`] has not taken back.
    #[inline]
    pub fn tx_outstanding(&self) -> u32 {
        // Both indices run from 0 since the socket was made, and each descriptor sent is completed once.
        self.tx.position().wrapping_sub(self.completion.position())
    }

    /// True when [`Socket::complete`] would find something.
    #[inline]
    pub fn completions_ready(&mut self) -> bool {
        self.completion.available() > 0
    }

    /// Makes the kernel send what is in the transmit ring, if it has to be told.
    pub fn kick(&mut self) -> Kick {
        if !self.tx_pending() {
            return Kick::Idle;
        }
        let Endpoint::Kernel(fd) = &self.endpoint else {
            return Kick::Sent;
        };
        if !self.tx.needs_wakeup() {
            return Kick::Idle;
        }
        let Err(error) = sys::wake_tx(fd.as_fd()) else {
            return Kick::Sent;
        };
        match error.raw_os_error() {
            // Budget or completion ring used up; driver busy; socket buffer full. The descriptors stay in the ring.
            Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR) => Kick::Again,
            Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV | libc::EBADF) => Kick::Down,
            _ => {
                self.counters.kick_errors += 1;
                Kick::Again
            }
        }
    }

    /// Makes a sleeping driver look at the fill ring; true when it had to be told. Copy mode never sleeps.
    pub fn wake_rx(&mut self) -> bool {
        let Endpoint::Kernel(fd) = &self.endpoint else {
            return false;
        };
        if !self.fill.needs_wakeup() {
            return false;
        }
        // EAGAIN says that nothing was received, which is not what was asked.
        let _ = sys::wake_rx(fd.as_fd());
        true
    }

    /// What the kernel counted.
    ///
    /// # Errors
    /// What the kernel says to getsockopt.
    pub fn statistics(&self) -> io::Result<XdpStatistics> {
        match &self.endpoint {
            Endpoint::Kernel(fd) => read_statistics(fd.as_fd()),
            Endpoint::Simulated(endpoint) => Ok(endpoint.statistics()),
        }
    }

    /// A handle to read the same from another thread. It is a duplicate of the descriptor, and keeps the queue busy
    /// until it is dropped.
    ///
    /// # Errors
    /// What the kernel says to dup.
    pub fn statistics_handle(&self) -> io::Result<StatisticsHandle> {
        Ok(StatisticsHandle(match &self.endpoint {
            Endpoint::Kernel(fd) => Endpoint::Kernel(fd.try_clone()?),
            Endpoint::Simulated(endpoint) => Endpoint::Simulated(endpoint.clone()),
        }))
    }

    /// What went wrong since it was mapped.
    pub fn counters(&self) -> SocketCounters {
        self.counters
    }

    /// The descriptor to wait for: readable when a packet is in the receive ring, in error when the device is gone.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.endpoint {
            Endpoint::Kernel(fd) => fd.as_fd(),
            Endpoint::Simulated(endpoint) => endpoint.as_fd(),
        }
    }

    /// The rings, for taking over a dead process' frames.
    pub(crate) fn inherited(&mut self) -> Inherited<'_> {
        let Self {
            rx,
            tx,
            fill,
            completion,
            discarding,
            ..
        } = self;
        Inherited {
            rx,
            tx,
            fill,
            completion,
            discarding,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        Self::as_fd(self)
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket")
            .field("port", &self.port)
            .field("sizes", &self.sizes)
            .finish_non_exhaustive()
    }
}

/// A socket's rings as [`crate::recover()`] finds them.
pub(crate) struct Inherited<'a> {
    pub(crate) rx: &'a mut Consumer<Descriptor>,
    pub(crate) tx: &'a Producer<Descriptor>,
    pub(crate) fill: &'a Producer<u64>,
    pub(crate) completion: &'a mut Consumer<u64>,
    pub(crate) discarding: &'a mut bool,
}

/// Reads a socket's statistics from another thread.
pub struct StatisticsHandle(Endpoint);

impl StatisticsHandle {
    /// What the kernel counted.
    ///
    /// # Errors
    /// What the kernel says to getsockopt.
    pub fn read(&self) -> io::Result<XdpStatistics> {
        match &self.0 {
            Endpoint::Kernel(fd) => read_statistics(fd.as_fd()),
            Endpoint::Simulated(endpoint) => Ok(endpoint.statistics()),
        }
    }
}

impl std::fmt::Debug for StatisticsHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatisticsHandle").finish_non_exhaustive()
    }
}

fn read_statistics(fd: BorrowedFd<'_>) -> io::Result<XdpStatistics> {
    sys::get_option(fd, libc::SOL_XDP, libc::XDP_STATISTICS)
}

enum Span {
    Whole(u32),
    TooLong,
    Incomplete,
}

/// How many descriptors the next packet has.
#[inline]
fn span(pass: &Pass<'_, Descriptor>, left: u32, ring_size: u32) -> Span {
    for ahead in 0..left {
        if !pass.peek(ahead).continues() {
            return Span::Whole(ahead + 1);
        }
        // A full ring without an end would wait for ever.
        if ahead + 1 == CHAIN_MAX as u32 || ahead + 1 == ring_size {
            return Span::TooLong;
        }
    }
    Span::Incomplete
}

/// Turns received descriptors into tokens.
struct Taker<'a> {
    umem: &'a Umem,
    owners: Owners<'a>,
    port: u16,
    spare: &'a mut Vec<FrameId>,
    counters: &'a mut SocketCounters,
}

impl Taker<'_> {
    /// The packet in the next `frames` descriptors; none when one of them is not ours.
    #[inline]
    fn take(&mut self, pass: &mut Pass<'_, Descriptor>, frames: u32) -> Option<FrameChain> {
        let mut chain = FrameChain::new();
        let mut whole = true;
        for _ in 0..frames {
            match self.claim(pass.next()) {
                Some(frame) => chain.push(frame),
                None => whole = false,
            }
            fault::point();
        }
        if whole {
            return Some(chain);
        }
        for frame in chain.drain(..) {
            self.put_aside(frame.surrender());
        }
        None
    }

    #[inline]
    fn claim(&mut self, descriptor: Descriptor) -> Option<Frame> {
        let id = self.lent(descriptor)?;
        let offset = (descriptor.address % FRAME_BYTES as u64) as usize;
        let len = descriptor.len as usize;
        if len > FRAME_BYTES - offset {
            self.counters.rx_foreign += 1;
            self.put_aside(id);
            return None;
        }
        self.owners.set(id, Owner::Worker);
        Some(Frame::mint(id, offset, len))
    }

    /// The frame of `descriptor`, if this port lent it: see the crate's safety argument, 2.
    #[inline]
    fn lent(&mut self, descriptor: Descriptor) -> Option<FrameId> {
        let id = self.umem.id_of(descriptor.address).filter(
            |id| matches!(self.owners.get(*id), Owner::Fill { port, .. } if port == self.port),
        );
        if id.is_none() {
            self.counters.rx_foreign += 1;
        }
        id
    }

    fn discard(&mut self, descriptor: Descriptor) {
        if let Some(id) = self.lent(descriptor) {
            self.put_aside(id);
        }
    }

    fn put_aside(&mut self, id: FrameId) {
        self.owners.set(id, Owner::Spare { port: self.port });
        fault::point();
        // Its capacity is what a fill and a receive ring can hold; a pusher that never refills finds no more.
        if self.spare.len() < self.spare.capacity() {
            self.spare.push(id);
        } else {
            count_leaked(1);
        }
    }
}

#[cfg(test)]
mod tests;
