//! VXLAN (RFC 7348) over IPv4 and IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_wire::{
    EtherType, EthernetHeader, Ipv4Header, Ipv6Header, MacAddr, Protocol, UdpHeader, Vni,
    VxlanHeader, checksum, vxlan,
};
use zerocopy::{Immutable, IntoBytes, Unaligned, transmute};

/// Bytes an inner IP packet grows by before it meets the underlay's MTU: 50 over IPv4, 70 over IPv6.
/// As many as [`front_len`], since the inner Ethernet header counts and the outer one does not.
pub const fn overhead(underlay: IpAddr) -> u32 {
    front_len(underlay) as u32
}

/// Bytes in front of the inner Ethernet header, the outer Ethernet header included.
pub const fn front_len(underlay: IpAddr) -> usize {
    let ip = match underlay {
        IpAddr::V4(_) => Ipv4Header::LEN,
        IpAddr::V6(_) => Ipv6Header::LEN,
    };
    EthernetHeader::LEN + ip + UdpHeader::LEN + VxlanHeader::LEN
}

/// What goes in front of an inner frame.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// Our MAC and the next hop's.
    pub macs: (MacAddr, MacAddr),
    /// Our address and the remote tunnel endpoint's, of one family.
    pub addresses: (IpAddr, IpAddr),
    /// Cluster's network identifier.
    pub vni: Vni,
    /// UDP destination port.
    pub port: u16,
    /// Hash of the inner flow: source port and flow label.
    pub flow_hash: u32,
    /// TOS or traffic class: the inner packet's (RFC 6040 section 4.1 for its ECN bits).
    pub class: u8,
    /// IPv4 identification; means nothing without fragments, but tells packets apart in a capture.
    pub identification: u16,
    /// Length of the inner frame in bytes.
    pub inner_len: usize,
}

impl Outer {
    /// Writes the headers into the first [`front_len`] bytes of `front`. False when the addresses are of two
    /// families, or the packet would be longer than IP can say.
    #[inline]
    pub fn write(&self, front: &mut [u8]) -> bool {
        let written = match self.addresses {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.write_v4(source, destination, front)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.write_v6(source, destination, front)
            }
            _ => None,
        };
        written.is_some()
    }

    #[inline(always)]
    fn write_v4(&self, source: Ipv4Addr, destination: Ipv4Addr, front: &mut [u8]) -> Option<()> {
        let udp_len = self.udp_len(Ipv4Header::LEN)?;
        let mut ip = Ipv4Header::new(source, destination, Protocol::UDP, udp_len);
        ip.set_tos(self.class);
        ip.set_identification(self.identification);
        ip.fill_checksum();
        *front.first_chunk_mut::<{ size_of::<Front4>() }>()? = transmute!(Front4 {
            ethernet: self.ethernet(EtherType::IPV4),
            ip,
            udp: self.udp(udp_len),
            tunnel: VxlanHeader::new(self.vni),
        });
        Some(())
    }

    #[inline(always)]
    fn write_v6(&self, source: Ipv6Addr, destination: Ipv6Addr, front: &mut [u8]) -> Option<()> {
        let udp_len = self.udp_len(0)?;
        let mut ip = Ipv6Header::new(source, destination, Protocol::UDP, udp_len);
        ip.set_traffic_class(self.class);
        // RFC 6438: routers that do not look for ports balance by the label.
        ip.set_flow_label(self.flow_hash);
        *front.first_chunk_mut::<{ size_of::<Front6>() }>()? = transmute!(Front6 {
            ethernet: self.ethernet(EtherType::IPV6),
            ip,
            udp: self.udp(udp_len),
            tunnel: VxlanHeader::new(self.vni),
        });
        Some(())
    }

    /// Length of the UDP datagram, `None` when it and `ip_len` more bytes exceed 16 bits.
    #[inline(always)]
    fn udp_len(&self, ip_len: usize) -> Option<u16> {
        let udp = UdpHeader::LEN + VxlanHeader::LEN + self.inner_len;
        u16::try_from(udp + ip_len).ok()?;
        Some(udp as u16)
    }

    #[inline(always)]
    const fn ethernet(&self, ether_type: EtherType) -> EthernetHeader {
        EthernetHeader::new(self.macs.1, self.macs.0, ether_type)
    }

    #[inline(always)]
    fn udp(&self, udp_len: u16) -> UdpHeader {
        let payload_len = udp_len - UdpHeader::LEN as u16;
        UdpHeader::new(vxlan::source_port(self.flow_hash), self.port, payload_len)
    }
}

/// What stands in front of an inner frame over IPv4.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Front4 {
    ethernet: EthernetHeader,
    ip: Ipv4Header,
    udp: UdpHeader,
    tunnel: VxlanHeader,
}

/// The same over IPv6.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Front6 {
    ethernet: EthernetHeader,
    ip: Ipv6Header,
    udp: UdpHeader,
    tunnel: VxlanHeader,
}

const _: () = assert!(size_of::<Front4>() == front_len(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
const _: () = assert!(size_of::<Front6>() == front_len(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));

/// Corrects the lengths of headers that [`Outer::write`] wrote at the start of `front`, for another
/// inner frame behind them, and gives them another identification.
pub fn resize(front: &mut [u8], inner_len: usize, identification: u16) -> bool {
    let udp_len = (UdpHeader::LEN + VxlanHeader::LEN + inner_len) as u16;
    let Ok((ethernet, l3)) = EthernetHeader::parse(front) else {
        return false;
    };
    let l4 = if ethernet.ether_type() == EtherType::IPV4 {
        let Ok((ip, len)) = Ipv4Header::parse_mut(&mut front[l3..]) else {
            return false;
        };
        ip.set_total_len(udp_len + len as u16);
        ip.set_identification(identification);
        ip.fill_checksum();
        l3 + len
    } else {
        let Ok((ip, len)) = Ipv6Header::parse_mut(&mut front[l3..]) else {
            return false;
        };
        ip.set_payload_len(udp_len);
        l3 + len
    };
    let Ok((udp, _)) = UdpHeader::parse_mut(&mut front[l4..]) else {
        return false;
    };
    udp.set_total_len(udp_len);
    true
}

/// Makes the headers at the start of `front` those of one large UDP datagram, from which a device or the kernel makes
/// the packets: `payload_len` bytes behind its UDP header, whose checksum is left partial. Returns where the UDP
/// header starts; none when they are not what [`Outer::write`] wrote, or it would be too long.
pub fn join(front: &mut [u8], payload_len: usize) -> Option<usize> {
    let inner_len = payload_len.checked_sub(VxlanHeader::LEN)?;
    let (ethernet, l3) = EthernetHeader::parse(front).ok()?;
    let ether_type = ethernet.ether_type();
    let udp_len = u16::try_from(UdpHeader::LEN + payload_len).ok()?;
    u16::try_from(Ipv6Header::LEN + usize::from(udp_len)).ok()?;
    let identification = Ipv4Header::parse(&front[l3..]).map_or(0, |(ip, _)| ip.identification());
    if !resize(front, inner_len, identification) {
        return None;
    }
    let (sum, len) = if ether_type == EtherType::IPV4 {
        let (ip, len) = Ipv4Header::parse(&front[l3..]).ok()?;
        (ip.pseudo_sum(udp_len), len)
    } else {
        let (ip, len) = Ipv6Header::parse(&front[l3..]).ok()?;
        (ip.pseudo_sum(Protocol::UDP, udp_len.into()), len)
    };
    let (udp, _) = UdpHeader::parse_mut(&mut front[l3 + len..]).ok()?;
    udp.set_checksum(checksum::fold(sum));
    Some(l3 + len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_wire::build::Packet;

    fn outer(source: &str, destination: &str, inner_len: usize) -> Outer {
        Outer {
            macs: (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])),
            addresses: (source.parse().unwrap(), destination.parse().unwrap()),
            vni: Vni::new(77).unwrap(),
            port: 4789,
            flow_hash: 0x1234_5678,
            class: 0xb9,
            identification: 9,
            inner_len,
        }
    }

    #[test]
    fn headers_equal_those_of_the_packet_builder() {
        let inner = Packet::ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
            .udp(1, 2)
            .payload_len(33)
            .build();
        for (source, destination) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            let outer = outer(source, destination, inner.len());
            let mut frame = vec![0; front_len(outer.addresses.0)];
            assert!(outer.write(&mut frame));
            frame.extend_from_slice(&inner);
            let expected = Packet::ip(outer.addresses.0, outer.addresses.1)
                .macs(outer.macs.0, outer.macs.1)
                .traffic_class(0xb9)
                .flow_label(0x4_5678)
                .identification(9)
                .vxlan(vxlan::source_port(outer.flow_hash), outer.vni, &inner)
                .no_checksum()
                .build();
            assert_eq!(frame, expected);
        }
        assert_eq!(overhead("192.0.2.1".parse().unwrap()), 50);
        assert_eq!(overhead("2001:db8::1".parse().unwrap()), 70);
    }

    #[test]
    fn resized_headers_equal_fresh_ones() {
        for (source, destination) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            let mut front = vec![0; front_len(source.parse().unwrap())];
            assert!(outer(source, destination, 1400).write(&mut front));
            assert!(resize(&mut front, 321, 10));
            let mut expected = vec![0; front.len()];
            assert!(
                Outer {
                    identification: 10,
                    ..outer(source, destination, 321)
                }
                .write(&mut expected)
            );
            assert_eq!(front, expected);
        }
    }

    #[test]
    fn two_families_and_too_much_are_refused() {
        assert!(!outer("192.0.2.1", "2001:db8::2", 100).write(&mut [0; 100]));
        assert!(!outer("192.0.2.1", "192.0.2.2", 65_500).write(&mut [0; 100]));
        assert!(!outer("192.0.2.1", "192.0.2.2", 100).write(&mut [0; 49]));
    }
}
