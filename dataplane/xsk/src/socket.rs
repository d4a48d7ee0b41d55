//! One bound (device, queue): its four rings as a worker uses them.
//!
//! In a worker's round: [`Socket::complete`], [`Socket::refill`], [`Socket::receive`], the pipeline,
//! [`Socket::transmit`] per packet, [`Socket::kick`]. None of them allocates, and only `kick` and `wake_rx` make a
//! system call.

mod checksum;
mod receive;
mod report;
mod rings;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use zerocopy::IntoBytes;

use crate::fault;
use crate::frame::{FrameChain, FrameId, TX_METADATA_BYTES};
use crate::owner::Owner;
use crate::pool::FramePool;
use crate::ring::{Consumer, Descriptor, Producer};
use crate::sim::SimEndpoint;
use crate::sys;
use crate::umem::Umem;

pub use checksum::TxChecksum;
pub(crate) use checksum::TxMetadata;
use receive::{Span, Taker, span};
pub use report::{Kick, SocketCounters, StatisticsHandle, XdpStatistics};
pub(crate) use rings::Rings;
pub use rings::{RingSizes, SocketError};

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
    burst_frames: u32,
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
            burst_frames: u32::MAX,
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

    /// Bounds a burst: [`Socket::receive`] takes no further packet once those it took hold so many frames.
    pub fn set_burst_frames(&mut self, frames: u32) {
        self.burst_frames = frames;
    }

    /// Sizes of its rings.
    pub fn sizes(&self) -> RingSizes {
        self.sizes
    }

    /// Hands up to `packets` whole packets to `sink` and returns how many; fewer when they hold many frames
    /// ([`Socket::set_burst_frames`]).
    ///
    /// A packet of more than [`crate::CHAIN_MAX`] frames is dropped and counted; one not yet complete stays in the ring.
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
        let (mut received, mut taken) = (0, 0);
        while received < packets && taken < self.burst_frames && left > 0 {
            if self.discarding {
                let descriptor = pass.next();
                left -= 1;
                taker.discard(descriptor);
                self.discarding = descriptor.continues();
                continue;
            }
            match span(&pass, left, self.sizes.rx) {
                Span::Whole(span) => {
                    left -= span;
                    taken += span;
                    if let Some(chain) = taker.take(&mut pass, span) {
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

    /// Frames of packets nobody could use, which the next [`Socket::refill`] lends again.
    #[inline]
    pub fn spare_frames(&self) -> usize {
        self.spare.len()
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

    /// Frames lent for receiving that [`Socket::receive`] has not taken: in the fill ring, in the receive ring, and
    /// what the kernel keeps for itself.
    #[inline]
    pub fn rx_outstanding(&self) -> u32 {
        // Both indices run from 0 since the socket was made, and each frame lent is received once.
        self.fill.position().wrapping_sub(self.rx.position())
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
            Endpoint::Kernel(fd) => report::read_statistics(fd.as_fd()),
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

    /// The error the kernel keeps for the socket, once: ENETDOWN after its device was unregistered. Waiting does not
    /// show it: xsk_poll (net/xdp/xsk.c, 6.18) reports nothing at all for a socket that is not bound any more.
    ///
    /// # Errors
    /// What the kernel says to getsockopt.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        let Endpoint::Kernel(fd) = &self.endpoint else {
            return Ok(None);
        };
        let code: i32 = sys::get_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR)?;
        Ok((code != 0).then(|| io::Error::from_raw_os_error(code)))
    }

    /// The descriptor to wait for: readable when a packet is in the receive ring. That the device is gone does not
    /// end the wait, see [`Socket::take_error`].
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

#[cfg(test)]
mod tests;
