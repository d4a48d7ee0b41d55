//! TCP headers and options (RFC 9293), and the MSS clamp.

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{ChecksumField, Delta};
use crate::error::{Layer, ParseError, view, view_mut};

/// The control bits of byte 13.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Opens a connection.
    pub const SYN: Self = Self(0x02);
    /// Aborts a connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement field counts.
    pub const ACK: Self = Self(0x10);
    /// Urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// ECN echo.
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced.
    pub const CWR: Self = Self(0x80);

    /// Whether all bits of `other` are set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    #[inline]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The bits of both.
    #[inline]
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether this opens a connection: SYN without RST and FIN, with or without ACK. Only such
    /// segments carry an MSS.
    #[inline]
    pub const fn is_opening(self) -> bool {
        self.0 & (Self::SYN.0 | Self::RST.0 | Self::FIN.0) == Self::SYN.0
    }
}

impl core::ops::BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

/// The 20 fixed bytes of a TCP header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TcpHeader {
    source_port: U16,
    destination_port: U16,
    sequence: U32,
    acknowledgement: U32,
    data_offset: u8,
    flags: u8,
    window: U16,
    checksum: U16,
    urgent: U16,
}

const _: () = assert!(size_of::<TcpHeader>() == TcpHeader::LEN);

impl TcpHeader {
    /// Bytes of the header without options.
    pub const LEN: usize = 20;
    /// Bytes of the largest header, options included.
    pub const MAX_LEN: usize = 60;
    /// Offset of the checksum field, as the kernel's checksum offload wants it.
    pub const CHECKSUM_AT: usize = 16;

    /// A header without options or checksum.
    pub const fn new(source_port: u16, destination_port: u16, flags: TcpFlags) -> Self {
        Self {
            source_port: U16::new(source_port),
            destination_port: U16::new(destination_port),
            sequence: U32::new(0),
            acknowledgement: U32::new(0),
            data_offset: 0x50,
            flags: flags.0,
            window: U16::new(0xffff),
            checksum: U16::new(0),
            urgent: U16::new(0),
        }
    }

    /// The header at the start of a segment and the offset of its payload; options are checked to
    /// lie within `bytes`.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<(&Self, usize), ParseError> {
        let header: &Self = view(bytes, Layer::Tcp)?;
        let len = header.check(bytes.len())?;
        Ok((header, len))
    }

    /// As [`parse`](Self::parse), writable.
    #[inline]
    pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Self, usize), ParseError> {
        let available = bytes.len();
        let header: &mut Self = view_mut(bytes, Layer::Tcp)?;
        let len = header.check(available)?;
        Ok((header, len))
    }

    #[inline(always)]
    const fn check(&self, available: usize) -> Result<usize, ParseError> {
        let len = self.header_len();
        if len < Self::LEN {
            return Err(ParseError::HeaderLength(Layer::Tcp));
        }
        if len > available {
            return Err(ParseError::Truncated(Layer::Tcp));
        }
        Ok(len)
    }

    /// Bytes of the header with its options.
    #[inline]
    pub const fn header_len(&self) -> usize {
        (self.data_offset >> 4) as usize * 4
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

    /// Sequence number of the first byte.
    #[inline]
    pub const fn sequence(&self) -> u32 {
        self.sequence.get()
    }

    /// Next byte expected.
    #[inline]
    pub const fn acknowledgement(&self) -> u32 {
        self.acknowledgement.get()
    }

    /// Control bits.
    #[inline]
    pub const fn flags(&self) -> TcpFlags {
        TcpFlags(self.flags)
    }

    /// Receive window, unscaled.
    #[inline]
    pub const fn window(&self) -> u16 {
        self.window.get()
    }

    /// Checksum field as it stands.
    #[inline]
    pub const fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// Urgent pointer.
    #[inline]
    pub const fn urgent(&self) -> u16 {
        self.urgent.get()
    }

    /// Sets the sender's port; the checksum is left stale.
    pub const fn set_source_port(&mut self, port: u16) {
        self.source_port = U16::new(port);
    }

    /// Sets the receiver's port; the checksum is left stale.
    pub const fn set_destination_port(&mut self, port: u16) {
        self.destination_port = U16::new(port);
    }

    /// Sets the sequence number; the checksum is left stale.
    pub const fn set_sequence(&mut self, sequence: u32) {
        self.sequence = U32::new(sequence);
    }

    /// Sets the acknowledgement number; the checksum is left stale.
    pub const fn set_acknowledgement(&mut self, acknowledgement: u32) {
        self.acknowledgement = U32::new(acknowledgement);
    }

    /// Sets the control bits; the checksum is left stale.
    pub const fn set_flags(&mut self, flags: TcpFlags) {
        self.flags = flags.0;
    }

    /// Sets the window; the checksum is left stale.
    pub const fn set_window(&mut self, window: u16) {
        self.window = U16::new(window);
    }

    /// Sets the urgent pointer; the checksum is left stale.
    pub const fn set_urgent(&mut self, urgent: u16) {
        self.urgent = U16::new(urgent);
    }

    /// Sets the header length in bytes, a multiple of 4 from 20 to 60; the checksum is left stale.
    pub const fn set_header_len(&mut self, len: usize) {
        debug_assert!(len.is_multiple_of(4) && len >= Self::LEN && len <= Self::MAX_LEN);
        self.data_offset = (self.data_offset & 0x0f) | ((len / 4) as u8) << 4;
    }

    /// Sets the checksum field.
    pub const fn set_checksum(&mut self, checksum: u16) {
        self.checksum = U16::new(checksum);
    }
}

/// One TCP option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpOption<'a> {
    /// Padding.
    NoOperation,
    /// Largest segment the sender wants to receive.
    MaximumSegment(u16),
    /// Shift of the window field.
    WindowScale(u8),
    /// Selective acknowledgements are understood.
    SackPermitted,
    /// Selective acknowledgement blocks, eight bytes each.
    Sack(&'a [u8]),
    /// Timestamps (RFC 7323).
    Timestamps {
        /// Sender's clock.
        value: u32,
        /// The peer's clock echoed.
        echo: u32,
    },
    /// Any other option, and known ones of a wrong length.
    Other {
        /// Option kind.
        kind: u8,
        /// Bytes behind the length byte.
        data: &'a [u8],
    },
}

const KIND_END: u8 = 0;
const KIND_NO_OPERATION: u8 = 1;
const KIND_MAXIMUM_SEGMENT: u8 = 2;

/// Iterates the options of a TCP header; ends after the first malformed one.
#[derive(Clone, Debug)]
pub struct TcpOptions<'a> {
    rest: &'a [u8],
}

impl<'a> TcpOptions<'a> {
    /// The options of the segment at the start of `segment`.
    pub fn of(segment: &'a [u8]) -> Result<Self, ParseError> {
        let (_, len) = TcpHeader::parse(segment)?;
        Ok(Self::new(&segment[TcpHeader::LEN..len]))
    }

    /// The options in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Splits off the next option as kind and data.
    #[inline]
    fn split(&mut self) -> Option<Result<(u8, &'a [u8]), ParseError>> {
        let rest = core::mem::take(&mut self.rest);
        match *rest {
            [] | [KIND_END, ..] => None,
            [KIND_NO_OPERATION, ref tail @ ..] => {
                self.rest = tail;
                Some(Ok((KIND_NO_OPERATION, &[])))
            }
            [kind, len, ..] if len >= 2 && usize::from(len) <= rest.len() => {
                let (option, tail) = rest.split_at(usize::from(len));
                self.rest = tail;
                Some(Ok((kind, &option[2..])))
            }
            _ => Some(Err(ParseError::Option(Layer::Tcp))),
        }
    }
}

impl<'a> Iterator for TcpOptions<'a> {
    type Item = Result<TcpOption<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, data) = match self.split()? {
            Ok(option) => option,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(match (kind, data) {
            (KIND_NO_OPERATION, _) => TcpOption::NoOperation,
            (KIND_MAXIMUM_SEGMENT, &[a, b]) => {
                TcpOption::MaximumSegment(u16::from_be_bytes([a, b]))
            }
            (3, &[shift]) => TcpOption::WindowScale(shift),
            (4, &[]) => TcpOption::SackPermitted,
            (5, blocks) if blocks.len() % 8 == 0 && !blocks.is_empty() => TcpOption::Sack(blocks),
            (8, &[a, b, c, d, e, f, g, h]) => TcpOption::Timestamps {
                value: u32::from_be_bytes([a, b, c, d]),
                echo: u32::from_be_bytes([e, f, g, h]),
            },
            (kind, data) => TcpOption::Other { kind, data },
        }))
    }
}

/// The MSS option of a segment.
pub fn mss(segment: &[u8]) -> Option<u16> {
    let at = find_mss(segment)?;
    Some(u16::from_be_bytes([segment[at], segment[at + 1]]))
}

/// Lowers the MSS option of an opening segment to `max` and returns the old and new value; leaves
/// the segment alone and returns `None` when it opens nothing, has no such option, or has a smaller
/// one. A [`ChecksumField::Partial`] field holds the pseudo-header alone, which the option is no
/// part of, so only a full one is updated.
#[inline]
pub fn clamp_mss(segment: &mut [u8], max: u16, field: ChecksumField) -> Option<(u16, u16)> {
    let (header, _) = TcpHeader::parse(segment).ok()?;
    if !header.flags().is_opening() {
        return None;
    }
    let at = find_mss(segment)?;
    let old = u16::from_be_bytes([segment[at], segment[at + 1]]);
    if old <= max {
        return None;
    }
    segment[at..at + 2].copy_from_slice(&max.to_be_bytes());
    if field == ChecksumField::Full {
        // An option may start at any byte: at an odd one its halves belong to two words, which by
        // RFC 1071 section 2(B) is the same as swapping them.
        let swap = |value: u16| {
            if at % 2 == 1 {
                value.swap_bytes()
            } else {
                value
            }
        };
        let delta = Delta::new().word(swap(old), swap(max));
        let (header, _) = TcpHeader::parse_mut(segment).ok()?;
        header.set_checksum(delta.apply(header.checksum()));
    }
    Some((old, max))
}

/// Offset of the two bytes of the MSS value within the segment.
fn find_mss(segment: &[u8]) -> Option<usize> {
    let (_, len) = TcpHeader::parse(segment).ok()?;
    let mut options = TcpOptions::new(&segment[TcpHeader::LEN..len]);
    while let Some(Ok((kind, data))) = options.split() {
        if kind == KIND_MAXIMUM_SEGMENT && data.len() == 2 {
            return Some(len - options.rest.len() - 2);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Packet;
    use crate::layers::Layers;
    use std::vec::Vec;

    /// A SYN as Linux lays it out: MSS, SACK permitted, timestamps, NOP, window scale.
    const SYN: [u8; 40] = [
        0xd4, 0x31, 0x00, 0x50, 0x11, 0x22, 0x33, 0x44, 0, 0, 0, 0, 0xa0, 0x02, 0xfa, 0xf0, 0xbe,
        0xef, 0, 0, 2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 1, 2, 0, 0, 0, 0, 1, 3, 3, 7,
    ];

    #[test]
    fn reads_literal_bytes() {
        let (header, offset) = TcpHeader::parse(&SYN).unwrap();
        assert_eq!(offset, 40);
        assert_eq!(
            (header.source_port(), header.destination_port()),
            (54321, 80)
        );
        assert_eq!(
            (header.sequence(), header.acknowledgement()),
            (0x1122_3344, 0)
        );
        assert_eq!(header.flags(), TcpFlags::SYN);
        assert_eq!(
            (header.window(), header.checksum(), header.urgent()),
            (64240, 0xbeef, 0)
        );
        let options: Vec<_> = TcpOptions::of(&SYN).unwrap().map(Result::unwrap).collect();
        assert_eq!(
            options,
            [
                TcpOption::MaximumSegment(1460),
                TcpOption::SackPermitted,
                TcpOption::Timestamps {
                    value: 0x102,
                    echo: 0
                },
                TcpOption::NoOperation,
                TcpOption::WindowScale(7),
            ]
        );
        assert_eq!(mss(&SYN), Some(1460));
    }

    #[test]
    fn writes_every_field() {
        let mut bytes = [0_u8; 20];
        bytes.copy_from_slice(TcpHeader::new(0, 0, TcpFlags::SYN).as_bytes());
        let (header, _) = TcpHeader::parse_mut(&mut bytes).unwrap();
        header.set_source_port(1);
        header.set_destination_port(2);
        header.set_sequence(3);
        header.set_acknowledgement(4);
        header.set_flags(TcpFlags::ACK | TcpFlags::FIN);
        header.set_window(5);
        header.set_checksum(6);
        header.set_urgent(7);
        assert_eq!(
            bytes,
            [
                0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0x50, 0x11, 0, 5, 0, 6, 0, 7
            ]
        );
    }

    #[test]
    fn refuses_impossible_lengths() {
        let mut bytes = SYN;
        bytes[12] = 0x40;
        assert_eq!(
            TcpHeader::parse(&bytes).unwrap_err(),
            ParseError::HeaderLength(Layer::Tcp)
        );
        bytes[12] = 0xb0;
        assert_eq!(
            TcpHeader::parse(&bytes).unwrap_err(),
            ParseError::Truncated(Layer::Tcp)
        );
        assert_eq!(
            TcpHeader::parse(&SYN[..19]).unwrap_err(),
            ParseError::Truncated(Layer::Tcp)
        );
    }

    #[test]
    fn malformed_options_end_the_iteration() {
        for options in [&[2, 4, 1][..], &[2, 1, 0, 0], &[8, 0], &[5]] {
            let results: Vec<_> = TcpOptions::new(options).collect();
            assert_eq!(results, [Err(ParseError::Option(Layer::Tcp))]);
        }
        let wrong_length = [2, 3, 9, 3, 2, 0];
        let results: Vec<_> = TcpOptions::new(&wrong_length).map(Result::unwrap).collect();
        assert_eq!(
            results,
            [
                TcpOption::Other {
                    kind: 2,
                    data: &[9]
                },
                TcpOption::Other { kind: 3, data: &[] }
            ]
        );
    }

    #[test]
    fn only_opening_segments_open() {
        assert!(TcpFlags::SYN.is_opening());
        assert!((TcpFlags::SYN | TcpFlags::ACK | TcpFlags::ECE).is_opening());
        assert!(!TcpFlags::ACK.is_opening());
        assert!(!(TcpFlags::SYN | TcpFlags::FIN).is_opening());
        assert!(TcpFlags(0x12).contains(TcpFlags::SYN | TcpFlags::ACK));
        assert!(TcpFlags(0x12).intersects(TcpFlags::SYN | TcpFlags::RST));
    }

    fn syn(options: &[u8]) -> Vec<u8> {
        Packet::ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
            .tcp(1, 2)
            .flags(TcpFlags::SYN)
            .tcp_options(options)
            .build()
    }

    #[test]
    fn clamps_at_even_and_odd_offsets() {
        for lead in [&[][..], &[1], &[1, 1], &[4, 2, 1]] {
            let options = [lead, &[2, 4, 0xff, 0xd7]].concat();
            let mut frame = syn(&options);
            let clamped = clamp_mss(&mut frame[34..], 1410, ChecksumField::Full);
            assert_eq!(clamped, Some((65495, 1410)));
            assert_eq!(mss(&frame[34..]), Some(1410));
            let layers = Layers::parse(&frame, frame.len()).unwrap();
            assert_eq!(layers.transport_is_valid(&frame), Some(true), "{lead:?}");
        }
    }

    #[test]
    fn a_partial_checksum_is_left_alone() {
        let mut frame = syn(&[2, 4, 0xff, 0xd7]);
        let before = frame[50..52].to_vec();
        assert!(clamp_mss(&mut frame[34..], 1410, ChecksumField::Partial).is_some());
        assert_eq!(frame[50..52], before);
    }

    #[test]
    fn never_raises_and_touches_only_opening_segments() {
        let small = syn(&[2, 4, 0x05, 0x00]);
        let equal = syn(&[2, 4, 0x05, 0x82]);
        let absent = syn(&[4, 2]);
        let mut established = syn(&[2, 4, 0xff, 0xd7]);
        established[47] = TcpFlags::ACK.0;
        for frame in [small, equal, absent, established] {
            let mut after = frame.clone();
            assert_eq!(clamp_mss(&mut after[34..], 1410, ChecksumField::Full), None);
            assert_eq!(after, frame);
        }
        assert_eq!(clamp_mss(&mut [], 1410, ChecksumField::Full), None);
    }
}
