//! Frames a pod should not get away with, built by kind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, bail};
use clap::ValueEnum;
use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv6FragmentHeader,
    Ipv6Header, PacketBuilder, PacketBuilderStep, VlanId,
};

use crate::pattern::Random;

/// UDP port of VXLAN (RFC 7348).
const VXLAN_PORT: u16 = 4789;
/// Ethernet header and a full IP packet of 1,500 bytes.
const FRAME_MAX: u64 = 1_514;
const ETHERNET_HEADER: u64 = 14;
/// First of two overlapping fragments: this many bytes of payload, from 0.
const FIRST_FRAGMENT: usize = 1_200;
/// Where the second begins, inside the first.
const OVERLAP_AT: u16 = 600;

/// Ports of `connections`.
const FIRST_SOURCE_PORT: u16 = 1_024;
const FIRST_PORT: u16 = 5_300;
const CONNECTIONS_PER_PORT: u64 = 50_000;

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Requests for addresses that are not the gateway's
    ArpStorm,
    /// 802.1Q-tagged UDP
    Vlan,
    /// Random bytes, a part of them behind plausible headers
    Random,
    /// UDP from addresses the pod does not own
    SpoofedSource,
    /// UDP to a node's VXLAN port
    VxlanFromPod,
    /// Pairs of fragments, the second overlapping the first
    FragmentsOverlap,
    /// Frames that end inside the header they announce
    Runt,
    /// TCP SYNs, each of a connection of its own
    Syn,
    /// UDP of one flow: what `syn` is compared with
    Datagram,
    /// UDP, each of a connection of its own: 50,000 to port 5300, as many to the next and so on
    Connections,
}

impl Kind {
    /// How many of `count` frames must never be forwarded: of each pair of fragments the first is
    /// like any other.
    pub fn hostile(self, count: u64) -> u64 {
        match self {
            Self::FragmentsOverlap => count / 2,
            Self::Syn | Self::Datagram | Self::Connections => 0,
            _ => count,
        }
    }
}

/// Who the frames claim to be from and to.
pub struct Envelope {
    /// The interface's own MAC address.
    pub source_mac: [u8; 6],
    /// The gateway's.
    pub destination_mac: [u8; 6],
    /// The interface's own address, of the destination's family.
    pub source: IpAddr,
    /// Where to.
    pub destination: IpAddr,
}

impl Envelope {
    /// Frame number `number` of a run.
    pub fn build(&self, kind: Kind, number: u64, random: &mut Random) -> anyhow::Result<Vec<u8>> {
        Ok(match kind {
            Kind::ArpStorm => self.arp(random),
            Kind::Vlan => self.vlan(random)?,
            Kind::Random => self.random(number, random),
            Kind::SpoofedSource => self.udp(stranger(self.source, random), 9, random)?,
            Kind::VxlanFromPod => self.udp(self.source, VXLAN_PORT, random)?,
            Kind::FragmentsOverlap => self.fragment(number)?,
            Kind::Runt => self.runt(number, random),
            Kind::Syn => self.syn(random)?,
            Kind::Datagram => self.datagram((9, 9))?,
            Kind::Connections => {
                let source = FIRST_SOURCE_PORT + (number % CONNECTIONS_PER_PORT) as u16;
                let port = u16::try_from(number / CONNECTIONS_PER_PORT)?;
                let port = FIRST_PORT
                    .checked_add(port)
                    .context("too many connections")?;
                self.datagram((source, port))?
            }
        })
    }

    fn ethernet(&self, ether_type: EtherType) -> Vec<u8> {
        Ethernet2Header {
            source: self.source_mac,
            destination: self.destination_mac,
            ether_type,
        }
        .to_bytes()
        .to_vec()
    }

    /// A request (RFC 826) for an address of TEST-NET-3.
    fn arp(&self, random: &mut Random) -> Vec<u8> {
        let mut frame = self.ethernet(EtherType::ARP);
        frame[..6].fill(0xff);
        frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(self.source_mac);
        frame.extend(match self.source {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(_) => [0; 4],
        });
        frame.extend([0; 6]);
        frame.extend([203, 0, 113, random.below(256) as u8]);
        frame
    }

    fn vlan(&self, random: &mut Random) -> anyhow::Result<Vec<u8>> {
        let vid = VlanId::try_new(1 + random.below(4_094) as u16)?;
        let builder = PacketBuilder::ethernet2(self.source_mac, self.destination_mac);
        let builder = builder.single_vlan(vid);
        let builder = match (self.source, self.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => builder.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => builder.ipv6(from.octets(), to.octets(), 64),
            _ => bail!("source and destination are of different families"),
        };
        let mut frame = Vec::new();
        builder.udp(9, 9).write(&mut frame, b"tagged")?;
        Ok(frame)
    }

    fn builder(&self, source: IpAddr) -> anyhow::Result<PacketBuilderStep<IpHeaders>> {
        let builder = PacketBuilder::ethernet2(self.source_mac, self.destination_mac);
        Ok(match (source, self.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => builder.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => builder.ipv6(from.octets(), to.octets(), 64),
            _ => bail!("source and destination are of different families"),
        })
    }

    /// Ports from all over, so that hardly two in a million are the same.
    fn syn(&self, random: &mut Random) -> anyhow::Result<Vec<u8>> {
        let ports = [(); 2].map(|()| 1_024 + random.below(64_512) as u16);
        let sequence = random.below(1 << 32) as u32;
        let mut frame = Vec::new();
        let builder = self.builder(self.source)?;
        let builder = builder.tcp(ports[0], ports[1], sequence, 64_240);
        builder.syn().write(&mut frame, &[])?;
        Ok(frame)
    }

    fn datagram(&self, (from, to): (u16, u16)) -> anyhow::Result<Vec<u8>> {
        let mut frame = Vec::new();
        let builder = self.builder(self.source)?.udp(from, to);
        builder.write(&mut frame, &[0; 12])?;
        Ok(frame)
    }

    fn udp(&self, source: IpAddr, port: u16, random: &mut Random) -> anyhow::Result<Vec<u8>> {
        let builder = self.builder(source)?;
        let mut payload = [0; 64];
        random.fill(&mut payload);
        let mut frame = Vec::new();
        let source_port = 49_152 + random.below(16_384) as u16;
        builder.udp(source_port, port).write(&mut frame, &payload)?;
        Ok(frame)
    }

    /// A fifth is noise from the first byte, the rest noise behind an Ethernet header that fits.
    fn random(&self, number: u64, random: &mut Random) -> Vec<u8> {
        let len = ETHERNET_HEADER + random.below(FRAME_MAX - ETHERNET_HEADER + 1);
        let mut frame = vec![0; usize::try_from(len).unwrap_or_default()];
        random.fill(&mut frame);
        let ether_type = match number % 5 {
            0 => return frame,
            // Below 0x0600 this would be a length (IEEE 802.3), which is random enough too.
            1 => EtherType(random.below(1 << 16) as u16),
            2 => EtherType::IPV4,
            3 => EtherType::IPV6,
            _ => EtherType::ARP,
        };
        frame[..14].copy_from_slice(&self.ethernet(ether_type));
        frame
    }

    /// An even frame is the first fragment of a datagram, the odd one after it overlaps it.
    fn fragment(&self, number: u64) -> anyhow::Result<Vec<u8>> {
        let second = number % 2 == 1;
        let identification = (number / 2) as u32;
        let offset = IpFragOffset::try_new(if second { OVERLAP_AT / 8 } else { 0 })?;
        let mut payload = vec![0_u8; FIRST_FRAGMENT];
        // Ports and length of the datagram the two would make; no checksum, as IPv4 allows.
        let datagram = u16::try_from(FIRST_FRAGMENT)? + OVERLAP_AT;
        payload[1] = 9;
        payload[3] = 9;
        payload[4..6].copy_from_slice(&datagram.to_be_bytes());
        let mut frame;
        match (self.source, self.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame = self.ethernet(EtherType::IPV4);
                let len = u16::try_from(payload.len())?;
                let mut header =
                    Ipv4Header::new(len, 64, IpNumber::UDP, from.octets(), to.octets())?;
                header.identification = identification as u16;
                header.dont_fragment = false;
                header.more_fragments = !second;
                header.fragment_offset = offset;
                header.header_checksum = header.calc_header_checksum();
                header.write(&mut frame)?;
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                frame = self.ethernet(EtherType::IPV6);
                let header = Ipv6Header {
                    payload_length: u16::try_from(payload.len() + 8)?,
                    next_header: IpNumber::IPV6_FRAGMENTATION_HEADER,
                    hop_limit: 64,
                    source: from.octets(),
                    destination: to.octets(),
                    ..Ipv6Header::default()
                };
                header.write(&mut frame)?;
                Ipv6FragmentHeader::new(IpNumber::UDP, offset, !second, identification)
                    .write(&mut frame)?;
            }
            _ => bail!("source and destination are of different families"),
        }
        frame.extend(payload);
        Ok(frame)
    }

    /// An IP header cut short. Fewer bytes than an Ethernet header cannot be sent from a socket.
    fn runt(&self, number: u64, random: &mut Random) -> Vec<u8> {
        let (ether_type, header, first) = if number.is_multiple_of(2) {
            (EtherType::IPV4, 20, 0x45)
        } else {
            (EtherType::IPV6, 40, 0x60)
        };
        let mut frame = self.ethernet(ether_type);
        let mut rest = vec![0; usize::try_from(random.below(header)).unwrap_or_default()];
        random.fill(&mut rest);
        if let Some(version) = rest.first_mut() {
            *version = first;
        }
        frame.extend(rest);
        frame
    }
}

/// An address of the same family out of a documentation range, which no pod owns.
fn stranger(of: IpAddr, random: &mut Random) -> IpAddr {
    match of {
        IpAddr::V4(_) => Ipv4Addr::new(203, 0, 113, 1 + random.below(254) as u8).into(),
        IpAddr::V6(_) => {
            let low = random.below(1 << 16) as u16;
            Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, low).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket};

    use super::*;

    fn envelope(v6: bool) -> Envelope {
        Envelope {
            source_mac: [2, 0, 0, 0, 0, 1],
            destination_mac: [2, 0, 0, 0, 0, 2],
            source: if v6 {
                "fd00::1".parse().unwrap()
            } else {
                "10.0.0.1".parse().unwrap()
            },
            destination: if v6 {
                "fd00::2".parse().unwrap()
            } else {
                "10.0.0.2".parse().unwrap()
            },
        }
    }

    #[test]
    fn every_kind_builds_in_both_families_and_repeats() {
        for kind in Kind::value_variants() {
            for v6 in [false, true] {
                let (mut a, mut b) = (Random::new(5), Random::new(5));
                for number in 0..200 {
                    let frame = envelope(v6).build(*kind, number, &mut a).unwrap();
                    assert_eq!(frame, envelope(v6).build(*kind, number, &mut b).unwrap());
                    assert!(
                        (14..=1_514).contains(&frame.len()),
                        "{kind:?}: {}",
                        frame.len()
                    );
                }
            }
        }
    }

    #[test]
    fn fragments_of_a_pair_overlap() {
        for v6 in [false, true] {
            let envelope = envelope(v6);
            let ranges = [0, 1].map(|number| {
                let frame = envelope.build(Kind::FragmentsOverlap, number, &mut Random::new(1));
                let frame = frame.unwrap();
                let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
                let (start, len) = match sliced.net.unwrap() {
                    NetSlice::Ipv4(ip) => (
                        ip.header().fragments_offset().byte_offset(),
                        ip.payload().payload.len(),
                    ),
                    NetSlice::Ipv6(ip) => {
                        assert!(ip.is_payload_fragmented());
                        (
                            if number == 0 { 0 } else { OVERLAP_AT },
                            ip.payload().payload.len(),
                        )
                    }
                    NetSlice::Arp(_) => unreachable!("fragments are IP"),
                };
                (usize::from(start), usize::from(start) + len)
            });
            assert!(ranges[1].0 < ranges[0].1, "{ranges:?}");
        }
    }

    #[test]
    fn spoofed_frames_are_well_formed() {
        let mut random = Random::new(3);
        let frame = envelope(false)
            .build(Kind::SpoofedSource, 0, &mut random)
            .unwrap();
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv4(ip)) = sliced.net else {
            unreachable!("IPv4 was asked for");
        };
        assert_eq!(ip.header().source()[..3], [203, 0, 113]);
        let header = ip.header().to_header();
        assert_eq!(header.calc_header_checksum(), header.header_checksum);
    }
}
