//! IPv6 headers and the walk over their extension headers (RFC 8200).

use core::net::Ipv6Addr;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute, transmute_mut,
    transmute_ref,
};

use crate::checksum;
use crate::error::{Layer, ParseError, view, view_mut};
use crate::fragment::Fragment;
use crate::protocol::{Ecn, Protocol};

/// Extension headers the walk steps over. RFC 8200 section 4.1 lists seven, each at most once but
/// for destination options; hosts of RFC 8504 section 5.3 may refuse more than eight.
pub const MAX_EXTENSIONS: usize = 8;

/// The 40 fixed bytes of an IPv6 header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv6Header {
    version_class_label: U32,
    payload_len: U16,
    next_header: u8,
    hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

const _: () = assert!(size_of::<Ipv6Header>() == Ipv6Header::LEN);

impl Ipv6Header {
    /// Bytes of the fixed header.
    pub const LEN: usize = 40;
    /// The least MTU of any IPv6 link (RFC 8200 section 5).
    pub const MIN_MTU: usize = 1280;

    /// A header of hop limit 64.
    pub const fn new(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        next_header: Protocol,
        payload_len: u16,
    ) -> Self {
        Self {
            version_class_label: U32::new(6 << 28),
            payload_len: U16::new(payload_len),
            next_header: next_header.0,
            hop_limit: 64,
            source: source.octets(),
            destination: destination.octets(),
        }
    }

    /// The header at the start of a packet and the offset behind it, where extension headers may
    /// follow: see [`Ipv6Chain`].
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<(&Self, usize), ParseError> {
        let header: &Self = view(bytes, Layer::Ipv6)?;
        header.check()?;
        Ok((header, Self::LEN))
    }

    /// As [`parse`](Self::parse), writable.
    #[inline]
    pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Self, usize), ParseError> {
        let header: &mut Self = view_mut(bytes, Layer::Ipv6)?;
        header.check()?;
        Ok((header, Self::LEN))
    }

    /// The header of a packet that begins with these bytes, if it is of IPv6.
    #[inline(always)]
    pub fn plain(bytes: &[u8; Self::LEN]) -> Option<&Self> {
        let header = Self::of(bytes);
        header.check().is_ok().then_some(header)
    }

    /// A header that was [parsed](Self::parse) before.
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
    const fn check(&self) -> Result<(), ParseError> {
        if self.version_class_label.get() >> 28 != 6 {
            return Err(ParseError::Version(Layer::Ipv6));
        }
        Ok(())
    }

    /// Refuses a packet that claims more than the `available` bytes from its header on.
    #[inline]
    pub const fn check_total_len(&self, available: usize) -> Result<(), ParseError> {
        if self.total_len() > available {
            Err(ParseError::TotalLength(Layer::Ipv6))
        } else {
            Ok(())
        }
    }

    /// Bytes behind the fixed header. Zero is taken at its word: jumbograms (RFC 2675) need links
    /// of more than 64 KiB, which weft has not.
    #[inline]
    pub const fn payload_len(&self) -> u16 {
        self.payload_len.get()
    }

    /// Bytes of header and payload.
    #[inline]
    pub const fn total_len(&self) -> usize {
        Self::LEN + self.payload_len.get() as usize
    }

    /// DSCP and ECN.
    #[inline]
    pub const fn traffic_class(&self) -> u8 {
        (self.version_class_label.get() >> 20) as u8
    }

    /// Congestion notification bits.
    #[inline]
    pub const fn ecn(&self) -> Ecn {
        Ecn::from_bits(self.traffic_class())
    }

    /// Flow label.
    #[inline]
    pub const fn flow_label(&self) -> u32 {
        self.version_class_label.get() & 0x000f_ffff
    }

    /// Number of the header that follows, which may be an extension.
    #[inline]
    pub const fn next_header(&self) -> Protocol {
        Protocol(self.next_header)
    }

    /// Hop limit.
    #[inline]
    pub const fn hop_limit(&self) -> u8 {
        self.hop_limit
    }

    /// Source address.
    #[inline]
    pub const fn source(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.source)
    }

    /// Destination address.
    #[inline]
    pub const fn destination(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.destination)
    }

    /// The pseudo-header's sum for an upper packet of `len` bytes.
    #[inline]
    pub fn pseudo_sum(&self, protocol: Protocol, len: u32) -> u32 {
        checksum::pseudo_v6(self.source(), self.destination(), protocol, len)
    }

    /// Sets the payload length.
    pub const fn set_payload_len(&mut self, len: u16) {
        self.payload_len = U16::new(len);
    }

    /// Sets the traffic class.
    pub const fn set_traffic_class(&mut self, class: u8) {
        let rest = self.version_class_label.get() & 0xf00f_ffff;
        self.version_class_label = U32::new(rest | (class as u32) << 20);
    }

    /// Replaces the ECN bits.
    #[inline]
    pub const fn rewrite_ecn(&mut self, ecn: Ecn) {
        self.set_traffic_class((self.traffic_class() & !3) | ecn as u8);
    }

    /// Sets the low 20 bits.
    pub const fn set_flow_label(&mut self, label: u32) {
        let rest = self.version_class_label.get() & 0xfff0_0000;
        self.version_class_label = U32::new(rest | (label & 0x000f_ffff));
    }

    /// Sets the number of the header that follows.
    pub const fn set_next_header(&mut self, protocol: Protocol) {
        self.next_header = protocol.0;
    }

    /// Sets the hop limit.
    pub const fn set_hop_limit(&mut self, hops: u8) {
        self.hop_limit = hops;
    }

    /// Takes one hop off and returns true; leaves the header alone and returns false when the
    /// packet may not be forwarded any further.
    #[inline]
    pub const fn decrement_hop_limit(&mut self) -> bool {
        if self.hop_limit <= 1 {
            return false;
        }
        self.hop_limit -= 1;
        true
    }

    /// Sets source and destination, four words each; the transport checksum is the caller's.
    #[inline(always)]
    pub fn set_addresses(&mut self, words: &[u32; 8]) {
        let [a, b, c, d, e, f, g, h] = words.map(u32::to_be_bytes);
        self.source = transmute!([a, b, c, d]);
        self.destination = transmute!([e, f, g, h]);
    }

    /// Sets the source address; the transport checksum is the caller's.
    #[inline]
    pub const fn set_source(&mut self, address: Ipv6Addr) {
        self.source = address.octets();
    }

    /// Sets the destination address; the transport checksum is the caller's.
    #[inline]
    pub const fn set_destination(&mut self, address: Ipv6Addr) {
        self.destination = address.octets();
    }
}

/// The eight bytes of a fragment extension header (RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv6FragmentHeader {
    next_header: u8,
    reserved: u8,
    offset_more: U16,
    identification: U32,
}

const _: () = assert!(size_of::<Ipv6FragmentHeader>() == Ipv6FragmentHeader::LEN);

impl Ipv6FragmentHeader {
    /// Bytes of the header.
    pub const LEN: usize = 8;

    /// A header saying `fragment`; its offset is rounded down to a multiple of 8.
    pub const fn new(next_header: Protocol, fragment: Fragment) -> Self {
        Self {
            next_header: next_header.0,
            reserved: 0,
            offset_more: U16::new((fragment.offset & !7) | fragment.more as u16),
            identification: U32::new(fragment.identification),
        }
    }

    /// The header at the start of `bytes` and the offset behind it.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<(&Self, usize), ParseError> {
        Ok((view(bytes, Layer::Ipv6Extension)?, Self::LEN))
    }

    /// As [`parse`](Self::parse), writable.
    #[inline]
    pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Self, usize), ParseError> {
        Ok((view_mut(bytes, Layer::Ipv6Extension)?, Self::LEN))
    }

    /// Number of the header the fragmentable part begins with.
    pub const fn next_header(&self) -> Protocol {
        Protocol(self.next_header)
    }

    /// The fragment's place.
    pub const fn fragment(&self) -> Fragment {
        let bits = self.offset_more.get();
        Fragment {
            offset: bits & !7,
            more: bits & 1 != 0,
            identification: self.identification.get(),
        }
    }
}

/// The result of walking a packet's extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Chain {
    /// Number of the upper protocol. Of a fragment that is not the first: of the header the
    /// fragmentable part begins with, which may be an extension the walk could not see.
    pub protocol: Protocol,
    /// Offset of the upper header (or of the fragment's payload) from the IPv6 header's start.
    pub offset: u16,
    /// Offset, from the IPv6 header's start, of the byte that holds `protocol`: the byte to patch
    /// when a fragment header is inserted or removed in front of the upper header.
    pub next_header_at: u16,
    /// The fragment header met, with its offset from the IPv6 header's start.
    pub fragment: Option<(Fragment, u16)>,
    /// Type of the last routing header met; type 0 must be refused (RFC 5095).
    pub routing_type: Option<u8>,
    /// Whether a hop-by-hop header stands first.
    pub hop_by_hop: bool,
}

impl Ipv6Chain {
    /// Walks the extension headers of the packet starting at the IPv6 header. Bytes behind the
    /// packet's own length are not looked at. Stops in front of the first upper header, or behind
    /// the fragment header of a fragment that is not the first.
    #[inline]
    pub fn walk(packet: &[u8]) -> Result<(&Ipv6Header, Self), ParseError> {
        let (header, offset) = Ipv6Header::parse(packet)?;
        let protocol = header.next_header();
        let mut chain = Self {
            protocol,
            offset: offset as u16,
            next_header_at: 6,
            fragment: None,
            routing_type: None,
            hop_by_hop: false,
        };
        if protocol.is_ipv6_extension() {
            let end = header.total_len().min(packet.len());
            chain.walk_extensions(&packet[..end])?;
        }
        Ok((header, chain))
    }

    /// Whether this is a fragment whose upper header is in another packet.
    #[inline]
    pub const fn is_later_fragment(&self) -> bool {
        matches!(self.fragment, Some((fragment, _)) if !fragment.is_first())
    }

    #[inline(never)]
    fn walk_extensions(&mut self, packet: &[u8]) -> Result<(), ParseError> {
        for _ in 0..MAX_EXTENSIONS {
            if !self.protocol.is_ipv6_extension() || self.is_later_fragment() {
                return Ok(());
            }
            self.step(packet).map_err(|error| self.explain(error))?;
        }
        if self.protocol.is_ipv6_extension() && !self.is_later_fragment() {
            return Err(ParseError::TooDeep(Layer::Ipv6Extension));
        }
        Ok(())
    }

    /// A chain cut short in a first fragment with successors is RFC 7112's attack, elsewhere a
    /// packet cut short.
    const fn explain(&self, error: ParseError) -> ParseError {
        match (error, self.fragment) {
            (ParseError::Truncated(_), Some((Fragment { more: true, .. }, _))) => {
                ParseError::IncompleteChain
            }
            (error, _) => error,
        }
    }

    fn step(&mut self, packet: &[u8]) -> Result<(), ParseError> {
        const CUT: ParseError = ParseError::Truncated(Layer::Ipv6Extension);
        let at = usize::from(self.offset);
        // Every extension header is at least eight bytes long.
        let rest = packet.get(at..).ok_or(CUT)?;
        let &[next_header, len_field, kind, _, _, _, _, _] = rest.first_chunk().ok_or(CUT)?;
        let len = match self.protocol {
            Protocol::FRAGMENT => self.step_fragment(rest)?,
            // RFC 4302 section 2.2: counted in 4-byte units, minus 2.
            Protocol::AUTHENTICATION => (usize::from(len_field) + 2) * 4,
            Protocol::HOP_BY_HOP if at != Ipv6Header::LEN => {
                // RFC 8200 section 4.1: only immediately behind the fixed header.
                return Err(ParseError::Field(Layer::Ipv6Extension));
            }
            _ => (usize::from(len_field) + 1) * 8,
        };
        if len > rest.len() {
            return Err(CUT);
        }
        match self.protocol {
            Protocol::HOP_BY_HOP => self.hop_by_hop = true,
            Protocol::ROUTING => self.routing_type = Some(kind),
            _ => {}
        }
        self.protocol = Protocol(next_header);
        self.next_header_at = self.offset;
        // At most 8 * 2,048 bytes behind the fixed header: fits.
        self.offset += len as u16;
        Ok(())
    }

    fn step_fragment(&mut self, rest: &[u8]) -> Result<usize, ParseError> {
        if self.fragment.is_some() {
            return Err(ParseError::Field(Layer::Ipv6Extension));
        }
        let (header, len) = Ipv6FragmentHeader::parse(rest)?;
        self.fragment = Some((header.fragment(), self.offset));
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Packet;
    use std::vec::Vec;

    fn base() -> Packet {
        Packet::ipv6("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap()).udp(1, 2)
    }

    fn walk(packet: &[u8]) -> Result<Ipv6Chain, ParseError> {
        Ipv6Chain::walk(packet).map(|(_, chain)| chain)
    }

    #[test]
    fn reads_and_writes_literal_bytes() {
        let mut bytes = [0_u8; 40];
        bytes[..8].copy_from_slice(&[0x6b, 0x8a, 0xbc, 0xde, 0x00, 0x10, 58, 255]);
        bytes[8] = 0xfd;
        bytes[39] = 1;
        let (header, offset) = Ipv6Header::parse(&bytes).unwrap();
        assert_eq!(offset, 40);
        assert_eq!(header.traffic_class(), 0xb8);
        assert_eq!(header.flow_label(), 0xabcde);
        assert_eq!((header.payload_len(), header.total_len()), (16, 56));
        assert_eq!(header.next_header(), Protocol::ICMPV6);
        assert_eq!(header.hop_limit(), 255);
        assert_eq!(header.source(), "fd00::".parse::<Ipv6Addr>().unwrap());
        assert_eq!(header.destination(), Ipv6Addr::LOCALHOST);
        assert!(header.check_total_len(56).is_ok() && header.check_total_len(55).is_err());

        let (header, _) = Ipv6Header::parse_mut(&mut bytes).unwrap();
        header.rewrite_ecn(Ecn::Congestion);
        header.set_flow_label(0xfff0_0001);
        header.set_payload_len(2);
        header.set_source(Ipv6Addr::LOCALHOST);
        header.set_destination(Ipv6Addr::UNSPECIFIED);
        assert_eq!(header.ecn(), Ecn::Congestion);
        assert_eq!(bytes[..6], [0x6b, 0xb0, 0, 1, 0, 2]);
        assert_eq!(bytes[23], 1);
        assert_eq!(bytes[39], 0);
    }

    #[test]
    fn refuses_short_headers_and_other_versions() {
        let mut bytes = [0_u8; 40];
        assert_eq!(
            Ipv6Header::parse(&bytes).unwrap_err(),
            ParseError::Version(Layer::Ipv6)
        );
        bytes[0] = 0x60;
        assert_eq!(
            Ipv6Header::parse(&bytes[..39]).unwrap_err(),
            ParseError::Truncated(Layer::Ipv6)
        );
    }

    #[test]
    fn the_last_hop_is_not_taken() {
        let mut header =
            Ipv6Header::new(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, Protocol::UDP, 0);
        header.set_hop_limit(2);
        assert!(header.decrement_hop_limit());
        assert!(!header.decrement_hop_limit());
        assert_eq!(header.hop_limit(), 1);
    }

    #[test]
    fn a_plain_packet_has_an_empty_chain() {
        let chain = walk(&base().build_network()).unwrap();
        assert_eq!(chain.protocol, Protocol::UDP);
        assert_eq!((chain.offset, chain.next_header_at), (40, 6));
        assert_eq!(chain.fragment, None);
        assert!(!chain.hop_by_hop && chain.routing_type.is_none());
    }

    #[test]
    fn walks_every_kind_of_extension() {
        let packet = base()
            .extension(Protocol::HOP_BY_HOP, &[5, 2, 0, 0])
            .extension(Protocol::DESTINATION_OPTIONS, &[1, 12])
            .extension(Protocol::ROUTING, &[4, 0])
            .extension(Protocol::AUTHENTICATION, &[0; 22])
            .fragment(0, true)
            .payload(&[0; 8])
            .build_network();
        let chain = walk(&packet).unwrap();
        assert_eq!(chain.protocol, Protocol::UDP);
        assert_eq!(usize::from(chain.offset), 40 + 8 + 8 + 8 + 24 + 8);
        assert_eq!(packet[usize::from(chain.next_header_at)], Protocol::UDP.0);
        assert!(chain.hop_by_hop);
        assert_eq!(chain.routing_type, Some(4));
        let (fragment, at) = chain.fragment.unwrap();
        assert_eq!(usize::from(at), 40 + 8 + 8 + 8 + 24);
        assert!(fragment.is_first() && fragment.more);
    }

    #[test]
    fn a_later_fragment_ends_the_walk_whatever_it_claims_to_hold() {
        let packet = base()
            .raw(Protocol::DESTINATION_OPTIONS)
            .identification(0xdead_beef)
            .fragment(1448, false)
            .payload(&[0xff; 3])
            .build_network();
        let chain = walk(&packet).unwrap();
        assert!(chain.is_later_fragment());
        assert_eq!(chain.protocol, Protocol::DESTINATION_OPTIONS);
        assert_eq!(chain.offset, 48);
        assert_eq!(chain.fragment.unwrap().0.identification, 0xdead_beef);
    }

    #[test]
    fn a_first_fragment_must_hold_the_whole_chain() {
        let cut = |more| {
            base()
                .raw(Protocol::DESTINATION_OPTIONS)
                .fragment(0, more)
                .payload(&[17, 1, 0, 0, 0, 0, 0, 0])
                .build_network()
        };
        assert_eq!(walk(&cut(true)), Err(ParseError::IncompleteChain));
        assert_eq!(
            walk(&cut(false)),
            Err(ParseError::Truncated(Layer::Ipv6Extension))
        );
    }

    #[test]
    fn bytes_behind_the_packet_are_not_part_of_the_chain() {
        let mut packet = base()
            .raw(Protocol::DESTINATION_OPTIONS)
            .payload(&[17, 0, 1, 4])
            .build_network();
        packet.extend([0; 60]);
        assert_eq!(
            walk(&packet),
            Err(ParseError::Truncated(Layer::Ipv6Extension))
        );
    }

    #[test]
    fn refuses_chains_that_are_too_long() {
        let chain_of = |count: usize| {
            (0..count)
                .fold(base(), |packet, _| {
                    packet.extension(Protocol::DESTINATION_OPTIONS, &[1, 4])
                })
                .build_network()
        };
        assert!(walk(&chain_of(MAX_EXTENSIONS)).is_ok());
        assert_eq!(
            walk(&chain_of(MAX_EXTENSIONS + 1)),
            Err(ParseError::TooDeep(Layer::Ipv6Extension))
        );
    }

    #[test]
    fn refuses_headers_out_of_place() {
        let late = base()
            .extension(Protocol::DESTINATION_OPTIONS, &[1, 4])
            .extension(Protocol::HOP_BY_HOP, &[1, 4])
            .build_network();
        let twice = base()
            .extension(Protocol::FRAGMENT, &[0; 6])
            .fragment(0, false)
            .build_network();
        for packet in [late, twice] {
            assert_eq!(walk(&packet), Err(ParseError::Field(Layer::Ipv6Extension)));
        }
    }

    #[test]
    fn every_cut_of_a_chain_is_refused_without_panic() {
        let packet = base()
            .extension(Protocol::HOP_BY_HOP, &[1, 4])
            .extension(Protocol::ROUTING, &[0; 14])
            .fragment(0, true)
            .build_network();
        let results: Vec<_> = (0..packet.len()).map(|len| walk(&packet[..len])).collect();
        let first_whole = results.iter().position(Result::is_ok).unwrap();
        assert_eq!(first_whole, 40 + 8 + 16 + 8);
    }
}
