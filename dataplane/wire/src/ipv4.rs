//! IPv4 headers and options (RFC 791).

use core::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute_mut, transmute_ref,
};

use crate::checksum;
use crate::error::{Layer, ParseError, view, view_mut};
use crate::fragment::Fragment;
use crate::protocol::{Ecn, Protocol};

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// The 20 fixed bytes of an IPv4 header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv4Header {
    version_ihl: u8,
    tos: u8,
    total_len: U16,
    identification: U16,
    flags_offset: U16,
    ttl: u8,
    protocol: u8,
    checksum: U16,
    source: [u8; 4],
    destination: [u8; 4],
}

const _: () = assert!(size_of::<Ipv4Header>() == Ipv4Header::LEN);

impl Ipv4Header {
    /// Bytes of the header without options.
    pub const LEN: usize = 20;
    /// Bytes of the largest header, options included.
    pub const MAX_LEN: usize = 60;

    /// A header without options: TTL 64, don't-fragment set, checksum still zero.
    pub const fn new(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: Protocol,
        payload_len: u16,
    ) -> Self {
        Self {
            version_ihl: 0x45,
            tos: 0,
            total_len: U16::new(payload_len.saturating_add(Self::LEN as u16)),
            identification: U16::new(0),
            flags_offset: U16::new(DONT_FRAGMENT),
            ttl: 64,
            protocol: protocol.0,
            checksum: U16::new(0),
            source: source.octets(),
            destination: destination.octets(),
        }
    }

    /// The header at the start of a packet and the offset of its payload, options checked to lie
    /// within `bytes`. Whether `bytes` hold the whole packet is for
    /// [`check_total_len`](Self::check_total_len).
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<(&Self, usize), ParseError> {
        let header: &Self = view(bytes, Layer::Ipv4)?;
        let len = header.check(bytes.len())?;
        Ok((header, len))
    }

    /// As [`parse`](Self::parse), writable.
    #[inline]
    pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Self, usize), ParseError> {
        let available = bytes.len();
        let header: &mut Self = view_mut(bytes, Layer::Ipv4)?;
        let len = header.check(available)?;
        Ok((header, len))
    }

    /// The header of a packet that begins with these bytes, if it is one without options, as nearly all are.
    /// Nothing but version and header length is looked at.
    #[inline(always)]
    pub fn plain(bytes: &[u8; Self::LEN]) -> Option<&Self> {
        let header = Self::of(bytes);
        (header.version_ihl == 0x45).then_some(header)
    }

    /// The fixed part of a header that was [parsed](Self::parse) before.
    #[inline(always)]
    pub fn of(bytes: &[u8; Self::LEN]) -> &Self {
        transmute_ref!(bytes)
    }

    /// As [`of`](Self::of), writable.
    #[inline(always)]
    pub fn of_mut(bytes: &mut [u8; Self::LEN]) -> &mut Self {
        transmute_mut!(bytes)
    }

    #[inline(always)]
    fn check(&self, available: usize) -> Result<usize, ParseError> {
        if self.version_ihl >> 4 != 4 {
            return Err(ParseError::Version(Layer::Ipv4));
        }
        let len = self.header_len();
        if len < Self::LEN {
            return Err(ParseError::HeaderLength(Layer::Ipv4));
        }
        if len > available {
            return Err(ParseError::Truncated(Layer::Ipv4));
        }
        if usize::from(self.total_len()) < len {
            return Err(ParseError::TotalLength(Layer::Ipv4));
        }
        Ok(len)
    }

    /// Refuses a packet that claims more than the `available` bytes from its header on. Fewer is
    /// legal: Ethernet pads short frames.
    #[inline]
    pub const fn check_total_len(&self, available: usize) -> Result<(), ParseError> {
        if self.total_len() as usize > available {
            Err(ParseError::TotalLength(Layer::Ipv4))
        } else {
            Ok(())
        }
    }

    /// Bytes of the header with its options.
    #[inline]
    pub const fn header_len(&self) -> usize {
        (self.version_ihl & 0x0f) as usize * 4
    }

    /// Bytes of header and payload.
    #[inline]
    pub const fn total_len(&self) -> u16 {
        self.total_len.get()
    }

    /// Bytes of the payload, 0 if the length field lies.
    #[inline]
    pub const fn payload_len(&self) -> u16 {
        self.total_len().saturating_sub(self.header_len() as u16)
    }

    /// Type of service: DSCP and ECN.
    #[inline]
    pub const fn tos(&self) -> u8 {
        self.tos
    }

    /// Congestion notification bits.
    #[inline]
    pub const fn ecn(&self) -> Ecn {
        Ecn::from_bits(self.tos)
    }

    /// Identification.
    #[inline]
    pub const fn identification(&self) -> u16 {
        self.identification.get()
    }

    /// Whether routers must not fragment the packet.
    #[inline]
    pub const fn dont_fragment(&self) -> bool {
        self.flags_offset.get() & DONT_FRAGMENT != 0
    }

    /// The fragment this packet is, `None` for a whole datagram.
    #[inline]
    pub const fn fragment(&self) -> Option<Fragment> {
        let bits = self.flags_offset.get();
        if bits & (MORE_FRAGMENTS | OFFSET_MASK) == 0 {
            return None;
        }
        Some(Fragment {
            offset: (bits & OFFSET_MASK) << 3,
            more: bits & MORE_FRAGMENTS != 0,
            identification: self.identification.get() as u32,
        })
    }

    /// Time to live.
    #[inline]
    pub const fn ttl(&self) -> u8 {
        self.ttl
    }

    /// Upper protocol.
    #[inline]
    pub const fn protocol(&self) -> Protocol {
        Protocol(self.protocol)
    }

    /// Header checksum as it stands.
    #[inline]
    pub const fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// Source address.
    #[inline]
    pub const fn source(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.source)
    }

    /// Destination address.
    #[inline]
    pub const fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.destination)
    }

    /// The sum of the fixed part, checksum included: of a header without options it tells whether that
    /// [holds](checksum::is_valid).
    #[inline(always)]
    pub fn sum(&self) -> u32 {
        let words: &[[u8; 4]; 5] = transmute_ref!(self);
        // Words are added in native order and swapped at the end: RFC 1071 section 2(B).
        let sum: u64 = words
            .iter()
            .map(|word| u64::from(u32::from_ne_bytes(*word)))
            .sum();
        let sum = (sum >> 32) + ((sum >> 16) & 0xffff) + (sum & 0xffff);
        u32::from(u16::from_be(checksum::fold(sum as u32)))
    }

    /// The pseudo-header's sum for an upper packet of `len` bytes.
    #[inline]
    pub const fn pseudo_sum(&self, len: u16) -> u32 {
        checksum::pseudo_v4(self.source(), self.destination(), self.protocol(), len)
    }

    // Setters that do not touch the checksum; call `fill_checksum` after them.

    /// Sets the TOS byte; the checksum is left stale.
    pub const fn set_tos(&mut self, tos: u8) {
        self.tos = tos;
    }

    /// Sets the total length; the checksum is left stale.
    pub const fn set_total_len(&mut self, len: u16) {
        self.total_len = U16::new(len);
    }

    /// Sets the identification; the checksum is left stale.
    pub const fn set_identification(&mut self, identification: u16) {
        self.identification = U16::new(identification);
    }

    /// Sets don't-fragment; the checksum is left stale.
    pub const fn set_dont_fragment(&mut self, on: bool) {
        let rest = self.flags_offset.get() & !DONT_FRAGMENT;
        self.flags_offset = U16::new(if on { rest | DONT_FRAGMENT } else { rest });
    }

    /// Makes the packet a fragment, keeping don't-fragment; `offset` in bytes is rounded down to a
    /// multiple of 8. The checksum is left stale.
    pub const fn set_fragment(&mut self, offset: u16, more: bool) {
        let keep = self.flags_offset.get() & DONT_FRAGMENT;
        let more = if more { MORE_FRAGMENTS } else { 0 };
        self.flags_offset = U16::new(keep | more | (offset >> 3));
    }

    /// Sets the time to live; the checksum is left stale.
    pub const fn set_ttl(&mut self, ttl: u8) {
        self.ttl = ttl;
    }

    /// Sets the upper protocol; the checksum is left stale.
    pub const fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol.0;
    }

    /// Sets the checksum field.
    pub const fn set_checksum(&mut self, checksum: u16) {
        self.checksum = U16::new(checksum);
    }

    /// Computes the checksum of a header **without options**.
    pub fn fill_checksum(&mut self) {
        self.checksum = U16::new(0);
        self.checksum = U16::new(checksum::finish(self.sum()));
    }

    /// Sets the addresses; the checksum is left stale.
    pub const fn set_addresses(&mut self, source: Ipv4Addr, destination: Ipv4Addr) {
        self.source = source.octets();
        self.destination = destination.octets();
    }

    // Rewrites on the forwarding path, which keep the checksum right incrementally.

    /// Takes one hop off and returns true; leaves the header alone and returns false when the
    /// packet may not be forwarded any further.
    #[inline]
    pub const fn decrement_ttl(&mut self) -> bool {
        if self.ttl <= 1 {
            return false;
        }
        let old = u16::from_be_bytes([self.ttl, self.protocol]);
        self.ttl -= 1;
        self.checksum = U16::new(checksum::update_u16(self.checksum.get(), old, old - 0x100));
        true
    }

    /// Replaces the ECN bits.
    #[inline]
    pub const fn rewrite_ecn(&mut self, ecn: Ecn) {
        let old = u16::from_be_bytes([self.version_ihl, self.tos]);
        self.tos = (self.tos & !3) | ecn as u8;
        let new = u16::from_be_bytes([self.version_ihl, self.tos]);
        self.checksum = U16::new(checksum::update_u16(self.checksum.get(), old, new));
    }

    /// Replaces the source address; the transport checksum is the caller's.
    #[inline]
    pub const fn rewrite_source(&mut self, address: Ipv4Addr) {
        let delta = checksum::Delta::new().v4(self.source(), address);
        self.checksum = U16::new(delta.apply(self.checksum.get()));
        self.source = address.octets();
    }

    /// Replaces the destination address; the transport checksum is the caller's.
    #[inline]
    pub const fn rewrite_destination(&mut self, address: Ipv4Addr) {
        let delta = checksum::Delta::new().v4(self.destination(), address);
        self.checksum = U16::new(delta.apply(self.checksum.get()));
        self.destination = address.octets();
    }
}

/// Whether the checksum of the header at the start of `packet`, options included, is right.
#[inline]
pub fn checksum_is_valid(packet: &[u8]) -> bool {
    match Ipv4Header::parse(packet) {
        Ok((_, len)) => checksum::is_valid(checksum::sum(&packet[..len])),
        Err(_) => false,
    }
}

/// Computes the checksum of the header at the start of `packet`, options included.
pub fn fill_checksum(packet: &mut [u8]) -> Result<(), ParseError> {
    let (header, len) = Ipv4Header::parse_mut(packet)?;
    header.set_checksum(0);
    let value = checksum::of(&packet[..len]);
    let (header, _) = Ipv4Header::parse_mut(packet)?;
    header.set_checksum(value);
    Ok(())
}

/// One IPv4 option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Option<'a> {
    /// Option type with its copied flag.
    pub kind: u8,
    /// Bytes behind the length byte; empty for a no-operation.
    pub data: &'a [u8],
}

impl Ipv4Option<'_> {
    /// End of the list.
    pub const END: u8 = 0;
    /// Padding.
    pub const NO_OPERATION: u8 = 1;
    /// Record route.
    pub const RECORD_ROUTE: u8 = 7;
    /// Loose source route.
    pub const LOOSE_SOURCE_ROUTE: u8 = 131;
    /// Strict source route.
    pub const STRICT_SOURCE_ROUTE: u8 = 137;
    /// Router alert.
    pub const ROUTER_ALERT: u8 = 148;

    /// Whether every fragment carries this option (RFC 791 section 3.1, copied flag).
    pub const fn is_copied(&self) -> bool {
        self.kind & 0x80 != 0
    }

    /// Whether the sender dictates the path; such packets evade policy and are dropped.
    pub const fn is_source_route(&self) -> bool {
        matches!(
            self.kind,
            Self::LOOSE_SOURCE_ROUTE | Self::STRICT_SOURCE_ROUTE
        )
    }
}

/// Iterates the options of an IPv4 header; ends after the first malformed one.
#[derive(Clone, Debug)]
pub struct Ipv4Options<'a> {
    rest: &'a [u8],
}

impl<'a> Ipv4Options<'a> {
    /// The options of the header at the start of `packet`.
    pub fn of(packet: &'a [u8]) -> Result<Self, ParseError> {
        let (_, len) = Ipv4Header::parse(packet)?;
        Ok(Self {
            rest: &packet[Ipv4Header::LEN..len],
        })
    }
}

impl<'a> Iterator for Ipv4Options<'a> {
    type Item = Result<Ipv4Option<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, data, rest) = match *self.rest {
            [] | [Ipv4Option::END, ..] => {
                self.rest = &[];
                return None;
            }
            [kind @ Ipv4Option::NO_OPERATION, ref rest @ ..] => (kind, &[][..], rest),
            [kind, len, ..] if len >= 2 && usize::from(len) <= self.rest.len() => {
                let (option, rest) = self.rest.split_at(usize::from(len));
                (kind, &option[2..], rest)
            }
            _ => {
                self.rest = &[];
                return Some(Err(ParseError::Option(Layer::Ipv4)));
            }
        };
        self.rest = rest;
        Some(Ok(Ipv4Option { kind, data }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// The textbook header with identification 1: UDP from 192.168.0.1 to 192.168.0.199.
    const BYTES: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x01, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x60, 192, 168, 0, 1,
        192, 168, 0, 199,
    ];

    #[test]
    fn reads_literal_bytes() {
        let (header, offset) = Ipv4Header::parse(&BYTES).unwrap();
        assert_eq!((offset, header.header_len()), (20, 20));
        assert_eq!((header.total_len(), header.payload_len()), (115, 95));
        assert_eq!(header.identification(), 1);
        assert!(header.dont_fragment());
        assert_eq!(header.fragment(), None);
        assert_eq!(header.ttl(), 64);
        assert_eq!(header.protocol(), Protocol::UDP);
        assert_eq!(header.checksum(), 0xb860);
        assert_eq!(header.source(), Ipv4Addr::new(192, 168, 0, 1));
        assert_eq!(header.destination(), Ipv4Addr::new(192, 168, 0, 199));
        assert!(checksum_is_valid(&BYTES));
    }

    #[test]
    fn length_fields_are_checked() {
        let parse = |at: usize, value: u8| {
            let mut bytes = BYTES;
            bytes[at] = value;
            Ipv4Header::parse(&bytes).map(|_| ()).unwrap_err()
        };
        assert_eq!(parse(0, 0x65), ParseError::Version(Layer::Ipv4));
        assert_eq!(parse(0, 0x44), ParseError::HeaderLength(Layer::Ipv4));
        assert_eq!(parse(0, 0x46), ParseError::Truncated(Layer::Ipv4));
        assert_eq!(parse(3, 19), ParseError::TotalLength(Layer::Ipv4));
        assert_eq!(
            Ipv4Header::parse(&BYTES[..19]).unwrap_err(),
            ParseError::Truncated(Layer::Ipv4)
        );
        let (header, _) = Ipv4Header::parse(&BYTES).unwrap();
        assert!(header.check_total_len(115).is_ok());
        assert_eq!(
            header.check_total_len(114),
            Err(ParseError::TotalLength(Layer::Ipv4))
        );
    }

    #[test]
    fn forwarding_keeps_the_checksum_right_down_to_the_last_hop() {
        let mut bytes = BYTES;
        for ttl in (1..64).rev() {
            let (header, _) = Ipv4Header::parse_mut(&mut bytes).unwrap();
            assert!(header.decrement_ttl());
            assert_eq!(header.ttl(), ttl);
            assert!(checksum_is_valid(&bytes));
        }
        let last = bytes;
        let (header, _) = Ipv4Header::parse_mut(&mut bytes).unwrap();
        assert!(!header.decrement_ttl());
        assert_eq!(bytes, last);
    }

    #[test]
    fn rewrites_keep_the_checksum_right() {
        let mut bytes = BYTES;
        let (header, _) = Ipv4Header::parse_mut(&mut bytes).unwrap();
        header.rewrite_ecn(Ecn::Congestion);
        header.rewrite_source(Ipv4Addr::new(10, 255, 0, 254));
        header.rewrite_destination(Ipv4Addr::BROADCAST);
        assert_eq!(header.ecn(), Ecn::Congestion);
        assert_eq!(header.tos(), 3);
        assert!(checksum_is_valid(&bytes));
        bytes[19] ^= 1;
        assert!(!checksum_is_valid(&bytes));
        assert!(!checksum_is_valid(&[]));
    }

    #[test]
    fn tells_fragments() {
        let mut bytes = BYTES;
        let (header, _) = Ipv4Header::parse_mut(&mut bytes).unwrap();
        header.set_dont_fragment(false);
        header.set_fragment(1480, true);
        let fragment = header.fragment().unwrap();
        assert_eq!(fragment.offset, 1480);
        assert!(fragment.more && !fragment.is_first());
        assert_eq!(fragment.identification, 1);
        header.set_fragment(65528, false);
        assert_eq!(header.fragment().unwrap().offset, 65528);
        header.set_fragment(0, false);
        assert_eq!(header.fragment(), None);
        header.set_fragment(0, true);
        assert!(header.fragment().unwrap().is_first());
    }

    #[test]
    fn a_reserved_flag_is_no_fragment() {
        let mut bytes = BYTES;
        bytes[6] = 0x80;
        assert_eq!(Ipv4Header::parse(&bytes).unwrap().0.fragment(), None);
    }

    fn with_options(options: &[u8]) -> Vec<u8> {
        let mut bytes = BYTES.to_vec();
        bytes[0] = 0x40 | ((20 + options.len()) / 4) as u8;
        bytes.extend_from_slice(options);
        bytes
    }

    #[test]
    fn iterates_options() {
        let mut bytes = with_options(&[1, 131, 7, 4, 10, 0, 0, 9, 148, 4, 0, 0]);
        fill_checksum(&mut bytes).unwrap();
        assert!(checksum_is_valid(&bytes));
        let options: Vec<_> = Ipv4Options::of(&bytes)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(options.len(), 3);
        assert_eq!(options[0].kind, Ipv4Option::NO_OPERATION);
        assert!(options[1].is_source_route() && options[1].is_copied());
        assert_eq!(options[1].data, [4, 10, 0, 0, 9]);
        assert_eq!(options[2].kind, Ipv4Option::ROUTER_ALERT);
    }

    #[test]
    fn malformed_options_end_the_iteration() {
        for options in [[7, 1, 0, 0], [7, 0, 0, 0], [7, 5, 0, 0], [1, 1, 1, 7]] {
            let bytes = with_options(&options);
            let last = Ipv4Options::of(&bytes).unwrap().last().unwrap();
            assert_eq!(last.unwrap_err(), ParseError::Option(Layer::Ipv4));
        }
        let ended = with_options(&[0, 7, 0, 0]);
        assert_eq!(Ipv4Options::of(&ended).unwrap().count(), 0);
    }
}
