//! SCTP common header and chunks (RFC 9260).

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Layer, ParseError, view, view_mut};

/// The 12 bytes in front of the chunks.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SctpHeader {
    source_port: U16,
    destination_port: U16,
    verification_tag: U32,
    /// CRC32c, least significant byte first on the wire (RFC 9260 appendix A).
    checksum: [u8; 4],
}

const _: () = assert!(size_of::<SctpHeader>() == SctpHeader::LEN);

impl SctpHeader {
    /// Bytes of the header.
    pub const LEN: usize = 12;

    /// A header without checksum.
    pub const fn new(source_port: u16, destination_port: u16, verification_tag: u32) -> Self {
        Self {
            source_port: U16::new(source_port),
            destination_port: U16::new(destination_port),
            verification_tag: U32::new(verification_tag),
            checksum: [0; 4],
        }
    }

    /// The header at the start of a packet and the offset of the first chunk.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<(&Self, usize), ParseError> {
        Ok((view(bytes, Layer::Sctp)?, Self::LEN))
    }

    /// As [`parse`](Self::parse), writable.
    #[inline]
    pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Self, usize), ParseError> {
        Ok((view_mut(bytes, Layer::Sctp)?, Self::LEN))
    }

    /// Sender's port.
    #[inline]
    pub const fn source_port(&self) -> u16 {
        self.source_port.get()
    }

    /// Receiver's port.
    #[inline]
    pub const fn destination_port(&self) -> u16 {
        self.destination_port.get()
    }

    /// Verification tag, zero in an INIT.
    #[inline]
    pub const fn verification_tag(&self) -> u32 {
        self.verification_tag.get()
    }

    /// CRC32c as it stands. Ports are covered by it but there is no pseudo-header: a translated
    /// address changes nothing, a translated port everything.
    #[inline]
    pub const fn checksum(&self) -> u32 {
        u32::from_le_bytes(self.checksum)
    }

    /// Sets the CRC32c.
    pub const fn set_checksum(&mut self, crc: u32) {
        self.checksum = crc.to_le_bytes();
    }
}

/// One chunk of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SctpChunk<'a> {
    /// Chunk type.
    pub kind: u8,
    /// Chunk flags.
    pub flags: u8,
    /// Value without padding, cut where the bytes end.
    pub value: &'a [u8],
}

impl SctpChunk<'_> {
    /// User data.
    pub const DATA: u8 = 0;
    /// Opens an association.
    pub const INIT: u8 = 1;
    /// Answers an INIT.
    pub const INIT_ACK: u8 = 2;
    /// Aborts an association.
    pub const ABORT: u8 = 6;
    /// Begins an orderly end.
    pub const SHUTDOWN: u8 = 7;
    /// Proves the INIT's sender.
    pub const COOKIE_ECHO: u8 = 10;
    /// Completes the set-up.
    pub const COOKIE_ACK: u8 = 11;
    /// Completes an orderly end.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// Iterates the chunks behind a common header; ends after the first malformed one.
#[derive(Clone, Debug)]
pub struct SctpChunks<'a> {
    rest: &'a [u8],
}

impl<'a> SctpChunks<'a> {
    /// The chunks in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for SctpChunks<'a> {
    type Item = Result<SctpChunk<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = core::mem::take(&mut self.rest);
        match *rest {
            [] => None,
            [kind, flags, high, low, ..] => {
                let len = usize::from(u16::from_be_bytes([high, low]));
                if len < 4 {
                    return Some(Err(ParseError::Option(Layer::Sctp)));
                }
                // Chunks are padded to four bytes, which the length does not count.
                self.rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
                let value = &rest[4..len.min(rest.len())];
                Some(Ok(SctpChunk { kind, flags, value }))
            }
            _ => Some(Err(ParseError::Truncated(Layer::Sctp))),
        }
    }
}

/// The CRC32c of an SCTP packet, its checksum field taken as zero. Byte by byte from a table: no
/// forwarded packet needs it, since SCTP keeps its checksum end to end.
pub fn crc32c(packet: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for (at, &byte) in packet.iter().enumerate() {
        let byte = if (8..12).contains(&at) { 0 } else { byte };
        crc = CRC_TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    }
    !crc
}

/// The CRC32c of a packet of `len` bytes whose ports were replaced: `change` is the exclusive or of both ports
/// before and after, as they stand in the header. The checksum is linear, so the rest of the packet is not read.
pub fn crc_moved(crc: u32, change: u32, len: usize) -> u32 {
    let mut moved = 0;
    for byte in change.to_be_bytes() {
        moved = CRC_TABLE[usize::from(moved as u8 ^ byte)] ^ (moved >> 8);
    }
    // Behind the ports come as many bytes in which nothing changed: a multiplication by x to the power of their bits.
    let mut bits = 8 * len.saturating_sub(4);
    let mut power = 1 << 30;
    while bits > 0 {
        if bits & 1 == 1 {
            moved = multiply(moved, power);
        }
        power = multiply(power, power);
        bits >>= 1;
    }
    crc ^ moved
}

/// Product of two polynomials modulo Castagnoli's; as in the checksum, the highest bit is the lowest power.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 1 << 31;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = (b >> 1) ^ if b & 1 == 1 { POLYNOMIAL } else { 0 };
        bit >>= 1;
    }
    product
}

/// Castagnoli's polynomial, bits reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

const CRC_TABLE: [u32; 256] = crc_table();

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn reads_header_and_chunks() {
        let mut bytes = SctpHeader::new(5000, 36412, 0x0102_0304)
            .as_bytes()
            .to_vec();
        bytes.extend([1, 0, 0, 7, 9, 9, 9, 0]);
        bytes.extend([0, 3, 0, 200, 1, 2]);
        let (header, offset) = SctpHeader::parse(&bytes).unwrap();
        assert_eq!(header.source_port(), 5000);
        assert_eq!(header.destination_port(), 36412);
        assert_eq!(header.verification_tag(), 0x0102_0304);
        let chunks: Vec<_> = SctpChunks::new(&bytes[offset..])
            .map(Result::unwrap)
            .collect();
        assert_eq!(chunks.len(), 2);
        assert_eq!(
            (chunks[0].kind, chunks[0].value),
            (SctpChunk::INIT, &[9, 9, 9][..])
        );
        assert_eq!((chunks[1].flags, chunks[1].value), (3, &[1, 2][..]));
    }

    #[test]
    fn malformed_chunks_end_the_iteration() {
        for bytes in [&[0, 0, 0, 3, 1][..], &[0, 0, 0]] {
            let mut chunks = SctpChunks::new(bytes);
            assert!(chunks.next().unwrap().is_err());
            assert!(chunks.next().is_none());
        }
    }

    #[test]
    fn the_checksum_moves_with_the_ports() {
        for len in [12, 13, 100, 1_500, 65_000] {
            let mut packet: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
            let before = crc32c(&packet);
            let old = u32::from_be_bytes(*packet.first_chunk().unwrap());
            packet[..4].copy_from_slice(&[1, 2, 3, 4]);
            let change = old ^ 0x0102_0304;
            assert_eq!(crc_moved(before, change, len), crc32c(&packet), "{len}");
        }
    }

    #[test]
    fn crc32c_matches_rfc_3720_appendix_b_4() {
        // The vector of 32 bytes of zeros, with the field in it zero as well.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        let mut packet = [0xff_u8; 32];
        let with_field = crc32c(&packet);
        packet[8..12].fill(0);
        assert_eq!(crc32c(&packet), with_field);
    }
}
