//! What a socket and the kernel say about it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::socket::Endpoint;
use crate::sys;

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
    /// Packets of more than [`crate::CHAIN_MAX`] frames; dropped.
    pub rx_oversized: u64,
    /// Chains that can never be sent: empty, an empty frame, no room for metadata, checksum outside the first frame.
    pub tx_refused: u64,
    /// Completed addresses of frames this port had not sent; ignored.
    pub completion_foreign: u64,
    /// Kicks the kernel refused for a reason other than being busy.
    pub kick_errors: u64,
}

/// What came of [`crate::Socket::kick`].
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

/// Reads a socket's statistics from another thread.
pub struct StatisticsHandle(pub(super) Endpoint);

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

pub(super) fn read_statistics(fd: BorrowedFd<'_>) -> io::Result<XdpStatistics> {
    sys::get_option(fd, libc::SOL_XDP, libc::XDP_STATISTICS)
}
