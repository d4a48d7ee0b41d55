//! Requests to the kernel in front of a transmitted packet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::frame::TX_METADATA_BYTES;

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

    pub(super) fn checksum(checksum: TxChecksum) -> Self {
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
