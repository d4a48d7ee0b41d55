//! The packets of `prog_run.rs`, the same for both address families.

use std::net::Ipv6Addr;

use etherparse::{
    EtherType, Icmpv4Type, Icmpv6Type, IpFragOffset, IpNumber, Ipv4Header, Ipv6Header,
    PacketBuilder, UdpHeader, icmpv4,
};

pub const VNI: u32 = 7765;
pub const VXLAN_PORT: u16 = 4789;
pub const US4: [u8; 4] = [192, 0, 2, 1];
pub const PEER4: [u8; 4] = [192, 0, 2, 2];
pub const US6: [u8; 16] = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets();
pub const PEER6: [u8; 16] = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).octets();
pub const STRANGER4: [u8; 4] = [198, 51, 100, 9];
pub const STRANGER6: [u8; 16] = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9).octets();
pub const ROUTED4: [u8; 4] = [10, 64, 3, 77];
pub const ROUTED6: [u8; 16] = Ipv6Addr::new(0xfd00, 0x64, 3, 0, 0, 0, 0, 0x77).octets();
pub const SERVICE4: [u8; 4] = [203, 0, 113, 80];
pub const SERVICE6: [u8; 16] = Ipv6Addr::new(0xfd00, 0x5e, 0, 0, 0, 0, 0, 0x80).octets();
pub const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]];

/// Builds the same packet for either family.
#[derive(Clone, Copy, PartialEq)]
pub enum Family {
    V4,
    V6,
}
pub use Family::{V4, V6};

#[derive(Clone, Copy)]
pub enum Address {
    Us,
    Peer,
}

impl Family {
    pub fn us(self) -> Address {
        Address::Us
    }

    pub fn peer(self) -> Address {
        Address::Peer
    }

    pub fn ip_len(self) -> usize {
        if self == V4 { 20 } else { 40 }
    }

    pub fn udp(self, from: Address, to: Address, port: u16, payload: &[u8]) -> Vec<u8> {
        match self {
            V4 => udp4(from.v4(), to.v4(), port, payload),
            V6 => udp6(from.v6(), to.v6(), port, payload),
        }
    }

    pub fn vxlan(self, vni: u32) -> Vec<u8> {
        self.udp(
            Address::Peer,
            Address::Us,
            VXLAN_PORT,
            &vxlan_payload(0x0800_0000, vni, 60),
        )
    }

    pub fn tcp(self, port: u16) -> Vec<u8> {
        let builder = match self {
            V4 => ethernet().ipv4(PEER4, US4, 64),
            V6 => ethernet().ipv6(PEER6, US6, 64),
        };
        let mut frame = Vec::new();
        builder
            .tcp(40_000, port, 1, 1024)
            .syn()
            .write(&mut frame, &[])
            .unwrap();
        frame
    }

    pub fn echo(self) -> Vec<u8> {
        let mut frame = Vec::new();
        match self {
            V4 => ethernet()
                .ipv4(PEER4, US4, 64)
                .icmpv4_echo_request(1, 1)
                .write(&mut frame, &[0; 56]),
            V6 => ethernet()
                .ipv6(PEER6, US6, 64)
                .icmpv6_echo_request(1, 1)
                .write(&mut frame, &[0; 56]),
        }
        .unwrap();
        frame
    }

    /// A UDP packet to a peer as the tunnel sends it, with its Ethernet header.
    pub fn quote_frame(self, from: Address, port: u16) -> Vec<u8> {
        self.udp(from, Address::Peer, port, &[0; 32])
    }

    /// The same as an ICMP error quotes it.
    pub fn quote(self, from: Address, port: u16) -> Vec<u8> {
        self.quote_frame(from, port)[14..].to_vec()
    }

    /// A "too big" error of a router on the way, addressed to us.
    pub fn too_big(self, quote: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        match self {
            V4 => {
                let cause =
                    icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
                ethernet()
                    .ipv4(STRANGER4, US4, 64)
                    .icmpv4(Icmpv4Type::DestinationUnreachable(cause))
                    .write(&mut frame, quote)
            }
            V6 => ethernet()
                .ipv6(STRANGER6, US6, 64)
                .icmpv6(Icmpv6Type::PacketTooBig { mtu: 1400 })
                .write(&mut frame, quote),
        }
        .unwrap();
        frame
    }
}

impl Address {
    pub fn v4(self) -> [u8; 4] {
        match self {
            Self::Us => US4,
            Self::Peer => PEER4,
        }
    }

    pub fn v6(self) -> [u8; 16] {
        match self {
            Self::Us => US6,
            Self::Peer => PEER6,
        }
    }
}

pub fn both(build: impl Fn(Family) -> Vec<u8>) -> [Vec<u8>; 2] {
    [build(V4), build(V6)]
}

pub fn ethernet() -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2(MACS[0], MACS[1])
}

pub fn udp4(from: [u8; 4], to: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    ethernet()
        .ipv4(from, to, 64)
        .udp(40_000, port)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

pub fn udp6(from: [u8; 16], to: [u8; 16], port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    ethernet()
        .ipv6(from, to, 64)
        .udp(40_000, port)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

pub fn vxlan_payload(flags: u32, vni: u32, inner_len: usize) -> Vec<u8> {
    let mut payload = Vec::from(flags.to_be_bytes());
    payload.extend((vni << 8).to_be_bytes());
    payload.resize(8 + inner_len, 0x5a);
    payload
}

/// Lengthens the IPv4 header by `len` bytes of no-operation options.
pub fn with_options(frame: &[u8], len: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[14] = 0x45 + u8::try_from(len / 4).unwrap();
    frame.splice(34..34, std::iter::repeat_n(1, len));
    frame
}

pub fn vlan(frame: &[u8]) -> Vec<u8> {
    let mut tagged = frame.to_vec();
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x0a]);
    tagged
}

pub fn arp() -> Vec<u8> {
    let mut frame = [MACS[1], MACS[0]].concat();
    frame.extend(EtherType::ARP.0.to_be_bytes());
    frame.resize(60, 0);
    frame
}

pub fn fragment4(from: [u8; 4], to: [u8; 4], offset: u16, more: bool) -> Vec<u8> {
    let mut ip = Ipv4Header::new(72, 64, IpNumber::UDP, from, to).unwrap();
    ip.dont_fragment = false;
    ip.more_fragments = more;
    ip.fragment_offset = IpFragOffset::try_new(offset).unwrap();
    let mut frame = [MACS[1], MACS[0]].concat();
    frame.extend(EtherType::IPV4.0.to_be_bytes());
    ip.write(&mut frame).unwrap();
    frame.extend(udp_and_vxlan());
    frame
}

pub fn fragment6(from: [u8; 16], to: [u8; 16]) -> Vec<u8> {
    let ip = Ipv6Header {
        payload_length: 80,
        next_header: IpNumber::IPV6_FRAGMENTATION_HEADER,
        hop_limit: 64,
        source: from,
        destination: to,
        ..Ipv6Header::default()
    };
    let mut frame = [MACS[1], MACS[0]].concat();
    frame.extend(EtherType::IPV6.0.to_be_bytes());
    ip.write(&mut frame).unwrap();
    // RFC 8200 section 4.5: next header UDP, offset 0, more fragments.
    frame.extend([17, 0, 0, 1, 0, 0, 0, 1]);
    frame.extend(udp_and_vxlan());
    frame
}

pub fn udp_and_vxlan() -> Vec<u8> {
    let udp = UdpHeader {
        source_port: 40_000,
        destination_port: VXLAN_PORT,
        length: 72,
        checksum: 0,
    };
    let mut bytes = udp.to_bytes().to_vec();
    bytes.extend(vxlan_payload(0x0800_0000, VNI, 56));
    bytes
}
