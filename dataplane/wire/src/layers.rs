//! Where a frame's headers are: the whole parse of one frame in one call.

use crate::checksum;
use crate::error::{Layer, ParseError};
use crate::ethernet::{EtherType, EthernetHeader};
use crate::fragment::Fragment;
use crate::ipv4::Ipv4Header;
use crate::ipv6::{Ipv6Chain, Ipv6Header};
use crate::protocol::Protocol;
use crate::tcp::TcpHeader;
use crate::udp::UdpHeader;
use crate::vlan::VlanTags;

/// What follows the Ethernet header and its tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// ARP.
    Arp,
    /// Something weft does not forward.
    Other(EtherType),
}

/// Offsets from the start of the frame. `l4` and `protocol` mean nothing unless `network` is an IP
/// version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    /// Network protocol.
    pub network: Network,
    /// Tags in front of it.
    pub tags: VlanTags,
    /// Start of the network header.
    pub l3: u16,
    /// Start of the upper header, or of the payload of a fragment that is not the first.
    pub l4: u16,
    /// First byte behind the IP packet; the frame may be longer (padding) but not shorter.
    pub end: u32,
    /// Upper protocol.
    pub protocol: Protocol,
    /// The fragment this packet is. An IPv6 atomic fragment is one too.
    pub fragment: Option<Fragment>,
}

impl Layers {
    /// Parses the headers of a frame up to the upper protocol's start. `frame` is the packet's
    /// first buffer, `frame_len` the length of all its buffers: headers must be in the first.
    #[inline]
    pub fn parse(frame: &[u8], frame_len: usize) -> Result<Self, ParseError> {
        let (ethernet, offset) = EthernetHeader::parse(frame)?;
        let ether_type = ethernet.ether_type();
        if ether_type.is_vlan() {
            let (tags, ether_type, l3) = VlanTags::walk(frame, ether_type, offset)?;
            Self::parse_network(frame, frame_len, (tags, ether_type, l3))
        } else {
            Self::parse_network(frame, frame_len, (VlanTags::default(), ether_type, offset))
        }
    }

    #[inline(always)]
    fn parse_network(
        frame: &[u8],
        frame_len: usize,
        (tags, ether_type, l3): (VlanTags, EtherType, usize),
    ) -> Result<Self, ParseError> {
        let packet = frame.get(l3..).unwrap_or_default();
        let available = frame_len.saturating_sub(l3);
        let (network, l4, len, protocol, fragment) = match ether_type {
            EtherType::IPV4 => {
                let (header, offset) = Ipv4Header::parse(packet)?;
                header.check_total_len(available)?;
                let len = usize::from(header.total_len());
                (
                    Network::V4,
                    offset,
                    len,
                    header.protocol(),
                    header.fragment(),
                )
            }
            EtherType::IPV6 => {
                let (header, chain) = Ipv6Chain::walk(packet)?;
                header.check_total_len(available)?;
                let fragment = chain.fragment.map(|(fragment, _)| fragment);
                let offset = usize::from(chain.offset);
                (
                    Network::V6,
                    offset,
                    header.total_len(),
                    chain.protocol,
                    fragment,
                )
            }
            EtherType::ARP => (Network::Arp, 0, available, Protocol::NO_NEXT, None),
            other => (Network::Other(other), 0, available, Protocol::NO_NEXT, None),
        };
        Ok(Self {
            network,
            tags,
            l3: l3 as u16,
            l4: (l3 + l4) as u16,
            end: (l3 + len) as u32,
            protocol,
            fragment,
        })
    }

    /// Whether the upper header is in this packet.
    #[inline]
    pub const fn has_upper_header(&self) -> bool {
        matches!(self.network, Network::V4 | Network::V6)
            && match self.fragment {
                Some(fragment) => fragment.is_first(),
                None => true,
            }
    }

    /// Bytes from the upper header to the packet's end.
    #[inline]
    pub const fn l4_len(&self) -> usize {
        (self.end as usize).saturating_sub(self.l4 as usize)
    }

    /// Source and destination port of a protocol that has them; zeros for others and for fragments
    /// without the upper header.
    #[inline]
    pub fn ports(&self, frame: &[u8]) -> Result<(u16, u16), ParseError> {
        if !self.protocol.has_ports() || !self.has_upper_header() {
            return Ok((0, 0));
        }
        let at = usize::from(self.l4);
        if self.l4_len() < 4 {
            return Err(ParseError::Truncated(self.upper_layer()));
        }
        match frame.get(at..at + 4) {
            Some(&[a, b, c, d]) => Ok((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))),
            _ => Err(ParseError::Truncated(self.upper_layer())),
        }
    }

    /// The upper header and what follows it up to the packet's end, of a packet in one buffer;
    /// `None` if `frame` holds only the first of several.
    #[inline]
    pub fn upper<'a>(&self, frame: &'a [u8]) -> Option<&'a [u8]> {
        frame.get(usize::from(self.l4)..self.end as usize)
    }

    /// Offset of the upper checksum field from the start of the upper header, for protocols that
    /// use the Internet checksum.
    #[inline]
    pub const fn checksum_at(&self) -> Option<usize> {
        match (self.network, self.protocol) {
            (_, Protocol::TCP) => Some(TcpHeader::CHECKSUM_AT),
            (_, Protocol::UDP) => Some(UdpHeader::CHECKSUM_AT),
            (Network::V4, Protocol::ICMP) | (Network::V6, Protocol::ICMPV6) => Some(2),
            _ => None,
        }
    }

    /// The sum of the pseudo-header of an unfragmented packet, zero for ICMPv4, which has none.
    /// `frame` must be the one that was parsed.
    #[inline]
    pub fn pseudo_sum(&self, frame: &[u8]) -> Result<u32, ParseError> {
        let packet = frame.get(usize::from(self.l3)..).unwrap_or_default();
        let len = self.l4_len() as u32;
        match (self.network, self.protocol) {
            (Network::V4, Protocol::ICMP) => Ok(0),
            (Network::V4, _) => Ok(Ipv4Header::parse(packet)?.0.pseudo_sum(len as u16)),
            (Network::V6, protocol) => Ok(Ipv6Header::parse(packet)?.0.pseudo_sum(protocol, len)),
            _ => Ok(0),
        }
    }

    /// Whether the upper checksum of an unfragmented packet in one buffer verifies; a UDP checksum
    /// of zero over IPv4 counts as right. `None` when the packet has no Internet checksum or lacks
    /// bytes to tell.
    pub fn transport_is_valid(&self, frame: &[u8]) -> Option<bool> {
        let at = self.checksum_at()?;
        if self.fragment.is_some_and(|fragment| !fragment.is_atomic()) {
            return None;
        }
        let upper = self.upper(frame)?;
        let field = upper.get(at..at + 2)?;
        if field == [0, 0] && self.protocol == Protocol::UDP {
            return Some(self.network == Network::V4);
        }
        let pseudo = self.pseudo_sum(frame).ok()?;
        Some(checksum::is_valid(pseudo + checksum::sum(upper)))
    }

    const fn upper_layer(&self) -> Layer {
        match self.protocol {
            Protocol::TCP => Layer::Tcp,
            Protocol::SCTP => Layer::Sctp,
            _ => Layer::Udp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Packet;
    use crate::checksum::ChecksumField;
    use crate::tcp::TcpFlags;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::vec::Vec;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const C: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const D: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    fn parse(frame: &[u8]) -> Layers {
        Layers::parse(frame, frame.len()).unwrap()
    }

    #[test]
    fn finds_the_headers_of_both_families_behind_tags() {
        for (packet, l4) in [(Packet::ipv4(A, B), 22 + 20), (Packet::ipv6(C, D), 22 + 40)] {
            let frame = packet.vlan(100).vlan(5).tcp(4000, 80).payload(b"x").build();
            let layers = parse(&frame);
            assert_eq!((layers.tags.vids, layers.tags.count), ([100, 5], 2));
            assert_eq!((layers.l3, layers.l4), (22, l4));
            assert_eq!(layers.end as usize, frame.len());
            assert_eq!(layers.protocol, Protocol::TCP);
            assert_eq!(layers.ports(&frame), Ok((4000, 80)));
            assert_eq!(layers.transport_is_valid(&frame), Some(true));
        }
    }

    #[test]
    fn padding_is_not_part_of_the_packet() {
        let mut frame = Packet::ipv4(A, B).udp(1, 2).payload(b"ab").build();
        let end = frame.len();
        frame.resize(60, 0xee);
        let layers = parse(&frame);
        assert_eq!((layers.end as usize, layers.l4_len()), (end, 10));
        assert_eq!(layers.upper(&frame).unwrap().len(), 10);
        assert_eq!(layers.transport_is_valid(&frame), Some(true));
    }

    #[test]
    fn a_packet_may_go_on_in_further_buffers() {
        let frame = Packet::ipv6(C, D).tcp(1, 2).payload_len(9000).build();
        let first = &frame[..3840];
        let layers = Layers::parse(first, frame.len()).unwrap();
        assert_eq!(layers.ports(first), Ok((1, 2)));
        assert_eq!(layers.upper(first), None);
        assert_eq!(layers.transport_is_valid(first), None);
        assert_eq!(
            Layers::parse(first, first.len()).unwrap_err(),
            ParseError::TotalLength(Layer::Ipv6)
        );
    }

    #[test]
    fn later_fragments_have_no_ports() {
        for packet in [Packet::ipv4(A, B), Packet::ipv6(C, D)] {
            let frames = packet.udp(1, 2).payload_len(3000).build_fragments(1280);
            assert_eq!(frames.len(), 3);
            assert_eq!(parse(&frames[0]).ports(&frames[0]), Ok((1, 2)));
            for frame in &frames[1..] {
                assert!(!parse(frame).has_upper_header());
                assert_eq!(parse(frame).ports(frame), Ok((0, 0)));
                assert_eq!(parse(frame).transport_is_valid(frame), None);
            }
        }
    }

    #[test]
    fn other_protocols_are_named_not_parsed() {
        let lldp = Packet::other(EtherType(0x88cc)).payload(&[1, 2]).build();
        assert_eq!(parse(&lldp).network, Network::Other(EtherType(0x88cc)));
        assert!(!parse(&lldp).has_upper_header());
        let arp = Packet::other(EtherType::ARP).build();
        assert_eq!(parse(&arp).network, Network::Arp);
    }

    #[test]
    fn cut_ports_are_an_error() {
        for (protocol, layer) in [
            (Protocol::TCP, Layer::Tcp),
            (Protocol::UDP, Layer::Udp),
            (Protocol::SCTP, Layer::Sctp),
        ] {
            let mut frame = Packet::ipv4(A, B).raw(protocol).payload(&[0; 3]).build();
            frame.resize(60, 0);
            let cut = parse(&frame).ports(&frame);
            assert_eq!(cut, Err(ParseError::Truncated(layer)));
        }
    }

    #[test]
    fn tells_right_wrong_and_absent_checksums() {
        let upper: [fn(Packet) -> Packet; 3] = [
            |packet| packet.tcp(1, 2).flags(TcpFlags::SYN).mss(1400),
            |packet| packet.udp(1, 2).payload(b"odd"),
            |packet| packet.echo_request(1, 2).payload(b"odd"),
        ];
        for upper in upper {
            for base in [Packet::ipv4(A, B), Packet::ipv6(C, D)] {
                let good = upper(base.clone()).build();
                assert_eq!(parse(&good).transport_is_valid(&good), Some(true));
                let bad = upper(base).wrong_checksum().build();
                assert_eq!(parse(&bad).transport_is_valid(&bad), Some(false));
            }
        }
        let none: Vec<_> = [Packet::ipv4(A, B), Packet::ipv6(C, D)]
            .map(|base| base.udp(1, 2).no_checksum().build())
            .into();
        assert_eq!(parse(&none[0]).transport_is_valid(&none[0]), Some(true));
        assert_eq!(parse(&none[1]).transport_is_valid(&none[1]), Some(false));
    }

    #[test]
    fn a_partial_checksum_equals_the_pseudo_sum() {
        for base in [Packet::ipv4(A, B), Packet::ipv6(C, D)] {
            let frame = base
                .tcp(1, 2)
                .payload_len(1000)
                .checksum(ChecksumField::Partial)
                .build();
            let layers = parse(&frame);
            let at = usize::from(layers.l4) + layers.checksum_at().unwrap();
            let field = u16::from_be_bytes([frame[at], frame[at + 1]]);
            assert_eq!(field, checksum::fold(layers.pseudo_sum(&frame).unwrap()));
        }
    }
}
