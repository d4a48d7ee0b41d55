//! What is built is what is parsed, by this crate and by etherparse, and the other way round.
#![allow(missing_docs, reason = "a test crate")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::collection::vec;
use proptest::prelude::*;
use weft_wire::build::Packet;
use weft_wire::{
    EthernetHeader, Ipv4Header, Ipv6Chain, Ipv6Header, Layers, MacAddr, Network, Protocol,
    TcpFlags, TcpHeader, UdpHeader, Vni, VxlanHeader, ipv4, vxlan,
};

#[derive(Clone, Copy, Debug)]
enum Upper {
    Tcp,
    Udp,
    Echo,
}

#[derive(Clone, Debug)]
struct Spec {
    addresses: (IpAddr, IpAddr),
    macs: ([u8; 6], [u8; 6]),
    vlan: Option<u16>,
    upper: Upper,
    ports: (u16, u16),
    hops: u8,
    class: u8,
    payload: Vec<u8>,
}

impl Spec {
    fn build(&self) -> Vec<u8> {
        let mut packet = Packet::ip(self.addresses.0, self.addresses.1)
            .macs(MacAddr(self.macs.0), MacAddr(self.macs.1))
            .hops(self.hops)
            .traffic_class(self.class);
        if let Some(vid) = self.vlan {
            packet = packet.vlan(vid);
        }
        let packet = match self.upper {
            Upper::Tcp => packet.tcp(self.ports.0, self.ports.1),
            Upper::Udp => packet.udp(self.ports.0, self.ports.1),
            Upper::Echo => packet.echo_request(self.ports.0, self.ports.1),
        };
        packet.payload(&self.payload).build()
    }
}

fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<(Ipv4Addr, Ipv4Addr)>().prop_map(|(a, b)| (a.into(), b.into())),
        any::<(Ipv6Addr, Ipv6Addr)>().prop_map(|(a, b)| (a.into(), b.into())),
    ]
}

fn spec() -> impl Strategy<Value = Spec> {
    let upper = prop_oneof![Just(Upper::Tcp), Just(Upper::Udp), Just(Upper::Echo)];
    (
        addresses(),
        any::<([u8; 6], [u8; 6])>(),
        proptest::option::of(0..4096_u16),
        upper,
        any::<(u16, u16)>(),
        any::<(u8, u8)>(),
        vec(any::<u8>(), 0..200),
    )
        .prop_map(
            |(addresses, macs, vlan, upper, ports, (hops, class), payload)| Spec {
                addresses,
                macs,
                vlan,
                upper,
                ports,
                hops,
                class,
                payload,
            },
        )
}

proptest! {
    #[test]
    fn what_is_built_is_parsed(spec in spec()) {
        let frame = spec.build();
        let (ethernet, _) = EthernetHeader::parse(&frame).unwrap();
        prop_assert_eq!(ethernet.source().octets(), spec.macs.0);
        prop_assert_eq!(ethernet.destination().octets(), spec.macs.1);

        let layers = Layers::parse(&frame, frame.len()).unwrap();
        prop_assert_eq!(layers.tags.count, u8::from(spec.vlan.is_some()));
        prop_assert_eq!(layers.tags.vids[0], spec.vlan.unwrap_or(0));
        prop_assert_eq!(layers.end as usize, frame.len());
        prop_assert_eq!(layers.transport_is_valid(&frame), Some(true));
        let packet = &frame[usize::from(layers.l3)..];
        match layers.network {
            Network::V4 => {
                let (ip, _) = Ipv4Header::parse(packet).unwrap();
                let found: (IpAddr, IpAddr) = (ip.source().into(), ip.destination().into());
                prop_assert_eq!(found, spec.addresses);
                prop_assert_eq!((ip.ttl(), ip.tos()), (spec.hops, spec.class));
                prop_assert!(ipv4::checksum_is_valid(packet));
            }
            Network::V6 => {
                let (ip, _) = Ipv6Header::parse(packet).unwrap();
                let found: (IpAddr, IpAddr) = (ip.source().into(), ip.destination().into());
                prop_assert_eq!(found, spec.addresses);
                prop_assert_eq!((ip.hop_limit(), ip.traffic_class()), (spec.hops, spec.class));
            }
            other => prop_assert!(false, "parsed as {other:?}"),
        }
        let upper = layers.upper(&frame).unwrap();
        let payload_at = match spec.upper {
            Upper::Tcp => TcpHeader::parse(upper).unwrap().1,
            Upper::Udp => UdpHeader::parse(upper).unwrap().1,
            Upper::Echo => 8,
        };
        prop_assert_eq!(&upper[payload_at..], &spec.payload[..]);
        if !matches!(spec.upper, Upper::Echo) {
            prop_assert_eq!(layers.ports(&frame), Ok(spec.ports));
        }
    }

    #[test]
    fn etherparse_reads_what_is_built(spec in spec()) {
        let frame = spec.build();
        let theirs = SlicedPacket::from_ethernet(&frame).unwrap();
        let payload = match (theirs.net.unwrap(), theirs.transport.unwrap()) {
            (NetSlice::Ipv4(ip), upper) => {
                let header = ip.header().to_header();
                prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
                prop_assert_eq!(header.time_to_live, spec.hops);
                match upper {
                    TransportSlice::Tcp(tcp) => {
                        let sum = tcp.calc_checksum_ipv4(header.source, header.destination);
                        prop_assert_eq!(sum.unwrap(), tcp.checksum());
                        tcp.payload().to_vec()
                    }
                    TransportSlice::Udp(udp) => {
                        let header_again = udp.to_header();
                        let sum = header_again.calc_checksum_ipv4(&header, udp.payload());
                        prop_assert_eq!(sum.unwrap(), udp.checksum());
                        udp.payload().to_vec()
                    }
                    TransportSlice::Icmpv4(icmp) => {
                        let sum = icmp.icmp_type().calc_checksum(icmp.payload());
                        prop_assert_eq!(sum, icmp.checksum());
                        icmp.payload().to_vec()
                    }
                    other => panic!("{other:?}"),
                }
            }
            (NetSlice::Ipv6(ip), upper) => {
                let header = ip.header().to_header();
                prop_assert_eq!(header.hop_limit, spec.hops);
                match upper {
                    TransportSlice::Tcp(tcp) => {
                        let sum = tcp.calc_checksum_ipv6(header.source, header.destination);
                        prop_assert_eq!(sum.unwrap(), tcp.checksum());
                        tcp.payload().to_vec()
                    }
                    TransportSlice::Udp(udp) => {
                        let sum = udp.to_header().calc_checksum_ipv6(&header, udp.payload());
                        prop_assert_eq!(sum.unwrap(), udp.checksum());
                        udp.payload().to_vec()
                    }
                    TransportSlice::Icmpv6(icmp) => {
                        prop_assert!(icmp.is_checksum_valid(header.source, header.destination));
                        icmp.payload().to_vec()
                    }
                    other => panic!("{other:?}"),
                }
            }
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(payload, spec.payload);
    }

    #[test]
    fn what_etherparse_builds_is_parsed(
        addresses in addresses(),
        ports: (u16, u16),
        sequence: (u32, u32),
        payload in vec(any::<u8>(), 0..200),
        hops: u8,
    ) {
        let link = PacketBuilder::ethernet2([1; 6], [2; 6]);
        let ip = match addresses {
            (IpAddr::V4(a), IpAddr::V4(b)) => link.ipv4(a.octets(), b.octets(), hops),
            (IpAddr::V6(a), IpAddr::V6(b)) => link.ipv6(a.octets(), b.octets(), hops),
            other => panic!("{other:?}"),
        };
        let builder = ip.tcp(ports.0, ports.1, sequence.0, 1024).syn().ack(sequence.1);
        let mut frame = Vec::new();
        builder.write(&mut frame, &payload).unwrap();

        let layers = Layers::parse(&frame, frame.len()).unwrap();
        prop_assert_eq!(layers.protocol, Protocol::TCP);
        prop_assert_eq!(layers.ports(&frame), Ok(ports));
        prop_assert_eq!(layers.transport_is_valid(&frame), Some(true));
        let (tcp, at) = TcpHeader::parse(layers.upper(&frame).unwrap()).unwrap();
        prop_assert_eq!((tcp.sequence(), tcp.acknowledgement()), sequence);
        prop_assert_eq!(tcp.flags(), TcpFlags::SYN | TcpFlags::ACK);
        prop_assert_eq!(&layers.upper(&frame).unwrap()[at..], &payload[..]);
        // And byte for byte what this crate builds of the same words.
        let ours = Packet::ip(addresses.0, addresses.1)
            .macs(MacAddr([1; 6]), MacAddr([2; 6]))
            .hops(hops)
            .tcp(ports.0, ports.1)
            .flags(TcpFlags::SYN | TcpFlags::ACK)
            .sequence(sequence.0, sequence.1)
            .window(1024)
            .payload(&payload)
            .build();
        prop_assert_eq!(ours, frame);
    }

    #[test]
    fn tunnels_round_trip(outer in addresses(), spec in spec(), vni in 0..1_u32 << 24, hash: u32) {
        let inner = spec.build();
        let vni = Vni::new(vni).unwrap();
        let port = vxlan::source_port(hash);
        let frame = Packet::ip(outer.0, outer.1).vxlan(port, vni, &inner).build();
        let layers = Layers::parse(&frame, frame.len()).unwrap();
        prop_assert_eq!(layers.ports(&frame), Ok((port, vxlan::PORT)));
        let upper = layers.upper(&frame).unwrap();
        let (udp, at) = UdpHeader::parse(upper).unwrap();
        prop_assert!(udp.check_total_len(upper.len()).is_ok());
        let (header, offset) = VxlanHeader::parse(&upper[at..]).unwrap();
        prop_assert_eq!(header.vni(), vni);
        prop_assert_eq!(&upper[at + offset..], &inner[..]);
    }

    #[test]
    fn fragments_put_together_are_the_datagram(
        addresses in addresses(),
        payload_len in 0..9000_usize,
        mtu in 1280..1500_usize,
        identification: u16,
    ) {
        let packet = Packet::ip(addresses.0, addresses.1)
            .identification(identification.into())
            .udp(1, 2)
            .payload_len(payload_len);
        let whole = packet.build();
        let layers = Layers::parse(&whole, whole.len()).unwrap();
        let datagram = layers.upper(&whole).unwrap();
        let frames = packet.build_fragments(mtu);
        let mut joined = Vec::new();
        for (index, frame) in frames.iter().enumerate() {
            prop_assert!(frame.len() - 14 <= mtu);
            let layers = Layers::parse(frame, frame.len()).unwrap();
            prop_assert_eq!(layers.protocol, Protocol::UDP);
            if let Some(fragment) = layers.fragment {
                prop_assert_eq!(usize::from(fragment.offset), joined.len());
                prop_assert_eq!(fragment.more, index + 1 != frames.len());
                prop_assert_eq!(fragment.identification, identification.into());
                prop_assert!(fragment.end(layers.l4_len()).is_some());
            }
            joined.extend_from_slice(layers.upper(frame).unwrap());
        }
        prop_assert_eq!(&joined[..], datagram);
    }

    #[test]
    fn extension_chains_agree_with_their_bytes_and_etherparse(
        kinds in vec(0..4_usize, 0..4),
        bodies in vec(vec(any::<u8>(), 2..40), 4),
        hop_by_hop: bool,
        offset in (0..8000_u16).prop_map(|offset| offset * 8),
        fragment: bool,
    ) {
        let mut packet = Packet::ipv6(Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED);
        let mut len = 40;
        let mut push = |packet: Packet, kind, body: &[u8]| {
            len += (body.len() + 2).next_multiple_of(8);
            packet.extension(kind, body)
        };
        if hop_by_hop {
            packet = push(packet, Protocol::HOP_BY_HOP, &bodies[0]);
        }
        // In the order etherparse wants them, each at most once.
        for (kind, body) in [Protocol::DESTINATION_OPTIONS, Protocol::ROUTING]
            .into_iter()
            .zip(&bodies[1..])
            .take(kinds.len())
        {
            packet = push(packet, kind, body);
        }
        if fragment {
            packet = packet.fragment(offset, true);
            len += 8;
        }
        let bytes = packet.udp(1, 2).payload(&[0; 8]).build_network();
        let (_, chain) = Ipv6Chain::walk(&bytes).unwrap();
        prop_assert_eq!(usize::from(chain.offset), len);
        prop_assert_eq!(chain.protocol, Protocol::UDP);
        prop_assert_eq!(bytes[usize::from(chain.next_header_at)], Protocol::UDP.0);
        prop_assert_eq!(chain.hop_by_hop, hop_by_hop);
        prop_assert_eq!(chain.fragment.map(|(found, _)| found.offset), fragment.then_some(offset));
        let theirs = etherparse::Ipv6Slice::from_slice(&bytes).unwrap();
        prop_assert_eq!(theirs.payload().payload, &bytes[len..]);
        prop_assert_eq!(theirs.payload().ip_number.0, chain.protocol.0);
        prop_assert_eq!(theirs.is_payload_fragmented(), fragment);
    }
}
