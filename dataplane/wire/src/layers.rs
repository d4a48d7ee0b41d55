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
        let (tags, ether_type, l3) = VlanTags::walk(frame, ethernet.ether_type(), offset)?;
        let packet = &frame[l3..];
        let available = frame_len - frame_len.min(l3);
        let mut layers = Self {
            network: Network::Other(ether_type),
            tags,
            l3: l3 as u16,
            l4: l3 as u16,
            end: frame_len as u32,
            protocol: Protocol::NO_NEXT,
            fragment: None,
        };
        match ether_type {
            EtherType::IPV4 => layers.parse_v4(packet, available)?,
            EtherType::IPV6 => layers.parse_v6(packet, available)?,
            EtherType::ARP => layers.network = Network::Arp,
            _ => {}
        }
        Ok(layers)
    }

    #[inline(always)]
    fn parse_v4(&mut self, packet: &[u8], available: usize) -> Result<(), ParseError> {
        let (header, len) = Ipv4Header::parse(packet)?;
        header.check_total_len(available)?;
        self.network = Network::V4;
        self.l4 += len as u16;
        self.end = u32::from(self.l3) + u32::from(header.total_len());
        self.protocol = header.protocol();
        self.fragment = header.fragment();
        Ok(())
    }

    #[inline(always)]
    fn parse_v6(&mut self, packet: &[u8], available: usize) -> Result<(), ParseError> {
        let (header, chain) = Ipv6Chain::walk(packet)?;
        header.check_total_len(available)?;
        self.network = Network::V6;
        self.l4 += chain.offset;
        self.end = u32::from(self.l3) + header.total_len() as u32;
        self.protocol = chain.protocol;
        self.fragment = chain.fragment.map(|(fragment, _)| fragment);
        Ok(())
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
