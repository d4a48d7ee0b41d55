//! Whole packets from a few words, for tests, benches and tools. The only module that allocates.
//!
//! ```
//! use weft_wire::{TcpFlags, Vni, build::Packet};
//!
//! let syn = Packet::ipv6("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
//!     .tcp(4000, 80)
//!     .flags(TcpFlags::SYN)
//!     .mss(1440)
//!     .build();
//! let outer = Packet::ipv4([192, 168, 0, 1].into(), [192, 168, 0, 2].into())
//!     .vxlan(50000, Vni::new(7).unwrap(), &syn)
//!     .build();
//! assert_eq!(outer.len(), syn.len() + 14 + 20 + 8 + 8);
//! ```

mod ip;

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::IntoBytes;

use self::ip::{IpPart, padded};
use crate::arp::{ArpOperation, ArpPacket};
use crate::checksum::{self, ChecksumField};
use crate::ethernet::{EtherType, EthernetHeader, MacAddr};
use crate::icmp::{IcmpHeader, v4, v6};
use crate::neighbour::{
    self, AdvertisementFlags, LinkAddressOption, NeighbourAdvertisement, NeighbourSolicitation,
};
use crate::protocol::Protocol;
use crate::sctp::{self, SctpHeader};
use crate::tcp::{TcpFlags, TcpHeader};
use crate::udp::UdpHeader;
use crate::vlan::VlanHeader;
use crate::vxlan::{self, Vni, VxlanHeader};

/// The sender of a packet whose builder was not told another.
pub const SOURCE_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x01]);
/// The receiver of a packet whose builder was not told another.
pub const DESTINATION_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x02]);

/// A packet under construction. Checksums and lengths are right unless asked otherwise.
#[derive(Clone, Debug)]
#[must_use = "a packet is bytes only after build"]
pub struct Packet {
    source_mac: MacAddr,
    destination_mac: MacAddr,
    tags: Vec<u16>,
    network: NetworkPart,
    upper: UpperPart,
    payload: Vec<u8>,
    checksum: ChecksumMode,
}

#[derive(Clone, Debug)]
enum NetworkPart {
    Arp(ArpPacket),
    Ip(IpPart),
    Other(EtherType),
}

#[derive(Clone, Debug)]
enum UpperPart {
    Raw(Protocol),
    Tcp(TcpHeader, Vec<u8>),
    Udp(UdpHeader),
    Sctp(SctpHeader),
    Icmp(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChecksumMode {
    Full,
    Partial,
    /// Left zero.
    Absent,
    /// One bit off.
    Wrong,
}

// Beginnings.
impl Packet {
    /// An IPv4 packet; without an upper protocol it carries its payload as protocol 59.
    pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        Self::ip(source.into(), destination.into())
    }

    /// An IPv6 packet; without an upper protocol it carries its payload as "no next header".
    pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        Self::ip(source.into(), destination.into())
    }

    /// An IP packet between two addresses of one family.
    ///
    /// # Panics
    /// When the families differ.
    pub fn ip(source: IpAddr, destination: IpAddr) -> Self {
        assert_eq!(
            source.is_ipv4(),
            destination.is_ipv4(),
            "addresses of two families in one packet"
        );
        Self::with_network(NetworkPart::Ip(IpPart::new(source, destination)))
    }

    /// An ARP packet; a request goes to everybody.
    pub fn arp(
        operation: ArpOperation,
        sender: (MacAddr, Ipv4Addr),
        target: (MacAddr, Ipv4Addr),
    ) -> Self {
        let mut packet =
            Self::with_network(NetworkPart::Arp(ArpPacket::new(operation, sender, target)));
        packet.source_mac = sender.0;
        packet.destination_mac = match operation {
            ArpOperation::REQUEST => MacAddr::BROADCAST,
            _ => target.0,
        };
        packet
    }

    /// A frame of any type whose payload is given as it is.
    pub fn other(ether_type: EtherType) -> Self {
        Self::with_network(NetworkPart::Other(ether_type))
    }

    fn with_network(network: NetworkPart) -> Self {
        Self {
            source_mac: SOURCE_MAC,
            destination_mac: DESTINATION_MAC,
            tags: Vec::new(),
            network,
            upper: UpperPart::Raw(Protocol::NO_NEXT),
            payload: Vec::new(),
            checksum: ChecksumMode::Full,
        }
    }
}

// Link and network header.
impl Packet {
    /// Sets the Ethernet addresses.
    pub fn macs(mut self, source: MacAddr, destination: MacAddr) -> Self {
        self.source_mac = source;
        self.destination_mac = destination;
        self
    }

    /// Adds an 802.1Q tag inside those already there.
    pub fn vlan(mut self, vid: u16) -> Self {
        self.tags.push(vid);
        self
    }

    /// Sets TTL or hop limit.
    pub fn hops(self, hops: u8) -> Self {
        self.with_ip(|ip| ip.hops = hops)
    }

    /// Sets TOS or traffic class: DSCP and ECN.
    pub fn traffic_class(self, class: u8) -> Self {
        self.with_ip(|ip| ip.class = class)
    }

    /// Sets the IPv6 flow label.
    pub fn flow_label(self, label: u32) -> Self {
        self.with_ip(|ip| ip.flow_label = label)
    }

    /// Sets the identification, of IPv6 that of the fragment header.
    pub fn identification(self, identification: u32) -> Self {
        self.with_ip(|ip| ip.identification = identification)
    }

    /// Sets IPv4's don't-fragment, which is on unless said otherwise.
    pub fn dont_fragment(self, on: bool) -> Self {
        self.with_ip(|ip| ip.dont_fragment = on)
    }

    /// Makes the packet a fragment at `offset` bytes; the upper header, if any, is still put in
    /// front of the payload. See [`build_fragments`](Self::build_fragments) for whole datagrams.
    pub fn fragment(self, offset: u16, more: bool) -> Self {
        self.with_ip(|ip| {
            ip.fragment = Some((offset, more));
            ip.dont_fragment = false;
        })
    }

    /// Appends IPv4 options as they are on the wire; padded to four bytes when built.
    pub fn ipv4_options(self, options: &[u8]) -> Self {
        self.with_ip(|ip| ip.options.extend_from_slice(options))
    }

    /// Appends an IPv6 extension header: `body` is everything behind the length byte, padded with
    /// zeros to a multiple of eight when built.
    pub fn extension(self, kind: Protocol, body: &[u8]) -> Self {
        self.with_ip(|ip| ip.extensions.push((kind, body.to_vec())))
    }

    fn with_ip(mut self, change: impl FnOnce(&mut IpPart)) -> Self {
        if let NetworkPart::Ip(ip) = &mut self.network {
            change(ip);
        }
        self
    }
}

// Upper header and payload.
impl Packet {
    /// The payload is a packet of this protocol, given as it is.
    pub fn raw(mut self, protocol: Protocol) -> Self {
        self.upper = UpperPart::Raw(protocol);
        self
    }

    /// A TCP segment, ACK only unless [`flags`](Self::flags) says otherwise.
    pub fn tcp(mut self, source_port: u16, destination_port: u16) -> Self {
        let header = TcpHeader::new(source_port, destination_port, TcpFlags::ACK);
        self.upper = UpperPart::Tcp(header, Vec::new());
        self
    }

    /// Sets the TCP flags.
    pub fn flags(self, flags: TcpFlags) -> Self {
        self.with_tcp(|tcp, _| tcp.set_flags(flags))
    }

    /// Sets the TCP sequence and acknowledgement numbers.
    pub fn sequence(self, sequence: u32, acknowledgement: u32) -> Self {
        self.with_tcp(|tcp, _| {
            tcp.set_sequence(sequence);
            tcp.set_acknowledgement(acknowledgement);
        })
    }

    /// Sets the TCP window.
    pub fn window(self, window: u16) -> Self {
        self.with_tcp(|tcp, _| tcp.set_window(window))
    }

    /// Sets the TCP urgent pointer.
    pub fn urgent(self, urgent: u16) -> Self {
        self.with_tcp(|tcp, _| tcp.set_urgent(urgent))
    }

    /// Appends a TCP MSS option.
    pub fn mss(self, mss: u16) -> Self {
        let [high, low] = mss.to_be_bytes();
        self.tcp_options(&[2, 4, high, low])
    }

    /// Appends TCP options as they are on the wire; padded to four bytes when built.
    pub fn tcp_options(self, options: &[u8]) -> Self {
        self.with_tcp(|_, all| all.extend_from_slice(options))
    }

    fn with_tcp(mut self, change: impl FnOnce(&mut TcpHeader, &mut Vec<u8>)) -> Self {
        if let UpperPart::Tcp(header, options) = &mut self.upper {
            change(header, options);
        }
        self
    }

    /// A UDP datagram.
    pub fn udp(mut self, source_port: u16, destination_port: u16) -> Self {
        self.upper = UpperPart::Udp(UdpHeader::new(source_port, destination_port, 0));
        self
    }

    /// An SCTP packet whose chunks are the payload.
    pub fn sctp(mut self, source_port: u16, destination_port: u16, tag: u32) -> Self {
        self.upper = UpperPart::Sctp(SctpHeader::new(source_port, destination_port, tag));
        self
    }

    /// An ICMP or ICMPv6 message, by the packet's family; `word` is the header's last four bytes.
    pub fn icmp(mut self, kind: u8, code: u8, word: u32) -> Self {
        let mut header = IcmpHeader::new(kind, code);
        header.set_word(word);
        self.upper = UpperPart::Icmp(header.as_bytes().to_vec());
        self
    }

    /// An echo request of the packet's family.
    pub fn echo_request(self, id: u16, sequence: u16) -> Self {
        let kind = if self.is_v4() {
            v4::ECHO_REQUEST
        } else {
            v6::ECHO_REQUEST
        };
        self.icmp(kind, 0, u32::from(id) << 16 | u32::from(sequence))
    }

    /// An echo reply of the packet's family.
    pub fn echo_reply(self, id: u16, sequence: u16) -> Self {
        let kind = if self.is_v4() {
            v4::ECHO_REPLY
        } else {
            v6::ECHO_REPLY
        };
        self.icmp(kind, 0, u32::from(id) << 16 | u32::from(sequence))
    }

    /// A neighbour solicitation carrying the sender's address, hop limit 255; from the unspecified
    /// address it carries none (RFC 4861 section 4.3).
    pub fn neighbour_solicitation(mut self, target: Ipv6Addr) -> Self {
        let mut message = NeighbourSolicitation::new(target).as_bytes().to_vec();
        let probe = matches!(&self.network, NetworkPart::Ip(ip) if ip.source.is_unspecified());
        if !probe {
            message.extend_from_slice(LinkAddressOption::source(self.source_mac).as_bytes());
        }
        self.upper = UpperPart::Icmp(message);
        self.hops(neighbour::HOP_LIMIT)
    }

    /// A neighbour advertisement carrying the sender's address, hop limit 255.
    pub fn neighbour_advertisement(mut self, target: Ipv6Addr, flags: AdvertisementFlags) -> Self {
        let mut message = NeighbourAdvertisement::new(target, flags)
            .as_bytes()
            .to_vec();
        message.extend_from_slice(LinkAddressOption::target(self.source_mac).as_bytes());
        self.upper = UpperPart::Icmp(message);
        self.hops(neighbour::HOP_LIMIT)
    }

    /// A VXLAN packet around the frame `inner`.
    pub fn vxlan(self, source_port: u16, vni: Vni, inner: &[u8]) -> Self {
        let mut payload = VxlanHeader::new(vni).as_bytes().to_vec();
        payload.extend_from_slice(inner);
        self.udp(source_port, vxlan::PORT).payload(&payload)
    }

    /// Sets the payload.
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Sets a payload of `len` bytes 0, 1, 2, …
    pub fn payload_len(mut self, len: usize) -> Self {
        self.payload = (0..len).map(|index| index as u8).collect();
        self
    }

    /// What the transport checksum field holds; partial is what a pod's stack leaves to its device.
    pub fn checksum(mut self, field: ChecksumField) -> Self {
        self.checksum = match field {
            ChecksumField::Full => ChecksumMode::Full,
            ChecksumField::Partial => ChecksumMode::Partial,
        };
        self
    }

    /// Leaves the upper checksum zero: "none" in UDP over IPv4.
    pub fn no_checksum(mut self) -> Self {
        self.checksum = ChecksumMode::Absent;
        self
    }

    /// Makes the upper checksum wrong by one bit.
    pub fn wrong_checksum(mut self) -> Self {
        self.checksum = ChecksumMode::Wrong;
        self
    }

    fn is_v4(&self) -> bool {
        matches!(&self.network, NetworkPart::Ip(ip) if ip.source.is_ipv4())
    }
}

// Ends.
impl Packet {
    /// The frame with its Ethernet header.
    pub fn build(&self) -> Vec<u8> {
        let mut frame = self.link();
        frame.extend(self.build_network());
        frame
    }

    /// The packet without its Ethernet header and tags.
    pub fn build_network(&self) -> Vec<u8> {
        match &self.network {
            NetworkPart::Arp(packet) => packet.as_bytes().to_vec(),
            NetworkPart::Other(_) => self.payload.clone(),
            NetworkPart::Ip(ip) => ip.wrap(self.protocol(), &self.build_upper(ip), ip.fragment),
        }
    }

    /// The frames of the datagram fragmented so that no IP packet is above `mtu` bytes; one
    /// unfragmented frame when it fits.
    ///
    /// # Panics
    /// When `mtu` leaves no room for eight bytes of payload.
    pub fn build_fragments(&self, mtu: usize) -> Vec<Vec<u8>> {
        let NetworkPart::Ip(ip) = &self.network else {
            return [self.build()].into();
        };
        let upper = self.build_upper(ip);
        let whole = ip.wrap(self.protocol(), &upper, None);
        if whole.len() <= mtu {
            return [self.build()].into();
        }
        let header = ip.wrap(self.protocol(), &[], Some((0, true))).len();
        let room = mtu.saturating_sub(header) & !7;
        assert!(room >= 8, "an MTU of {mtu} bytes cannot carry a fragment");
        let pieces = upper.chunks(room).enumerate();
        let last = upper.len().div_ceil(room) - 1;
        pieces
            .map(|(index, piece)| {
                let fragment = ((index * room) as u16, index != last);
                let mut frame = self.link();
                frame.extend(ip.wrap(self.protocol(), piece, Some(fragment)));
                frame
            })
            .collect()
    }

    fn link(&self) -> Vec<u8> {
        let inner = match &self.network {
            NetworkPart::Arp(_) => EtherType::ARP,
            NetworkPart::Other(ether_type) => *ether_type,
            NetworkPart::Ip(_) if self.is_v4() => EtherType::IPV4,
            NetworkPart::Ip(_) => EtherType::IPV6,
        };
        let outer = if self.tags.is_empty() {
            inner
        } else {
            EtherType::VLAN
        };
        let header = EthernetHeader::new(self.destination_mac, self.source_mac, outer);
        let mut bytes = header.as_bytes().to_vec();
        for (index, &vid) in self.tags.iter().enumerate() {
            let last = index + 1 == self.tags.len();
            let next = if last { inner } else { EtherType::VLAN };
            bytes.extend_from_slice(VlanHeader::new(vid, next).as_bytes());
        }
        bytes
    }

    fn protocol(&self) -> Protocol {
        match &self.upper {
            UpperPart::Raw(protocol) => *protocol,
            UpperPart::Tcp(..) => Protocol::TCP,
            UpperPart::Udp(_) => Protocol::UDP,
            UpperPart::Sctp(_) => Protocol::SCTP,
            UpperPart::Icmp(_) if self.is_v4() => Protocol::ICMP,
            UpperPart::Icmp(_) => Protocol::ICMPV6,
        }
    }

    /// Upper header and payload with lengths and checksum.
    fn build_upper(&self, ip: &IpPart) -> Vec<u8> {
        let (mut bytes, checksum_at) = match &self.upper {
            UpperPart::Raw(_) => (Vec::new(), None),
            UpperPart::Tcp(header, options) => {
                let mut header = *header;
                let options = padded(options, 4, 0);
                header.set_header_len(TcpHeader::LEN + options.len());
                let mut bytes = header.as_bytes().to_vec();
                bytes.extend(options);
                (bytes, Some(TcpHeader::CHECKSUM_AT))
            }
            UpperPart::Udp(header) => {
                let mut header = *header;
                header.set_total_len((UdpHeader::LEN + self.payload.len()) as u16);
                (header.as_bytes().to_vec(), Some(UdpHeader::CHECKSUM_AT))
            }
            UpperPart::Sctp(header) => (header.as_bytes().to_vec(), None),
            UpperPart::Icmp(message) => (message.clone(), Some(2)),
        };
        bytes.extend_from_slice(&self.payload);
        match checksum_at {
            Some(at) => self.fill_checksum(ip, &mut bytes, at),
            None if matches!(self.upper, UpperPart::Sctp(_)) => self.fill_crc(&mut bytes),
            None => {}
        }
        bytes
    }

    fn fill_checksum(&self, ip: &IpPart, bytes: &mut [u8], at: usize) {
        let pseudo = ip.pseudo_sum(self.protocol(), bytes.len());
        let full = pseudo + checksum::sum(bytes);
        let value = match self.checksum {
            ChecksumMode::Full if self.protocol() == Protocol::UDP => checksum::finish_udp(full),
            ChecksumMode::Full => checksum::finish(full),
            ChecksumMode::Partial => checksum::fold(pseudo),
            ChecksumMode::Absent => 0,
            ChecksumMode::Wrong => checksum::finish(full) ^ 1,
        };
        bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    fn fill_crc(&self, bytes: &mut [u8]) {
        let crc = match self.checksum {
            ChecksumMode::Absent | ChecksumMode::Partial => 0,
            ChecksumMode::Full => sctp::crc32c(bytes),
            ChecksumMode::Wrong => sctp::crc32c(bytes) ^ 1,
        };
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    }
}
