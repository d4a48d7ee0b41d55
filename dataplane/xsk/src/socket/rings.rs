//! The four rings of a socket: their sizes, and where they are mapped.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use zerocopy::FromBytes;

use crate::memory::Memory;
use crate::owner::RING_MAX;
use crate::ring::{Descriptor, Ring};
use crate::sys::{self, MmapOffsets, RingOffsets};

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

    pub(crate) fn check(self) -> Result<Self, SocketError> {
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

    pub(super) fn map(fd: BorrowedFd<'_>, sizes: RingSizes) -> Result<Self, SocketError> {
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
