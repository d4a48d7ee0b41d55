//! The short way through the headers of most packets: whole ones of TCP or UDP, without IPv4 options or IPv6
//! extension headers, in which nothing is wrong. It refuses what it does not know and gives no reasons; the long
//! way reads everything, and what this one takes it reads alike.

use weft_wire::{
    EtherType, EthernetHeader, Ipv4Header, Ipv6Header, Protocol, TcpFlags, TcpHeader, UdpHeader,
    checksum,
};

use super::{check_v4, check_v6};
use crate::packet::{Headers, Network};

/// Where the network header is.
const L3: usize = EthernetHeader::LEN;

/// The first bytes of a packet, up to the upper header.
const HEAD4: usize = L3 + Ipv4Header::LEN;
const HEAD6: usize = L3 + Ipv6Header::LEN;

/// What is read of an upper header.
struct Upper {
    ports: (u16, u16),
    tcp_flags: TcpFlags,
    checksum: Option<u16>,
}

/// Reads the headers of a packet of `total` bytes whose first buffer is `first`. False when it has to go the long way;
/// then nothing was written.
#[inline(always)]
pub(super) fn read(first: &[u8], total: usize, headers: &mut Headers) -> bool {
    let Ok((ethernet, _)) = EthernetHeader::parse(first) else {
        return false;
    };
    if ethernet.destination().is_multicast() {
        return false;
    }
    let read = match ethernet.ether_type() {
        EtherType::IPV4 => read_v4(first, total, headers),
        EtherType::IPV6 => read_v6(first, total, headers),
        _ => None,
    };
    read.is_some()
}

#[inline(always)]
fn read_v4(first: &[u8], total: usize, headers: &mut Headers) -> Option<()> {
    let (head, behind) = first.split_first_chunk::<HEAD4>()?;
    let ip = Ipv4Header::plain(head.last_chunk()?)?;
    let end = L3 + usize::from(ip.total_len());
    let (source, destination) = (ip.source(), ip.destination());
    let is_fine = end <= total
        && ip.fragment().is_none()
        && checksum::is_valid(ip.sum())
        && check_v4(source, destination).is_ok();
    if !is_fine {
        return None;
    }
    let len = end.checked_sub(HEAD4)?;
    let upper = upper(ip.protocol(), behind, len)?;
    *headers = Headers {
        network: Network::V4,
        protocol: ip.protocol(),
        tcp_flags: upper.tcp_flags,
        l3: L3 as u16,
        l4: HEAD4 as u16,
        end: end as u32,
        ports: upper.ports,
        source: source.into(),
        destination: destination.into(),
        fragment: None,
        fragment_len: len as u16,
        transport_checksum: upper.checksum,
    };
    Some(())
}

#[inline(always)]
fn read_v6(first: &[u8], total: usize, headers: &mut Headers) -> Option<()> {
    let (head, behind) = first.split_first_chunk::<HEAD6>()?;
    let ip = Ipv6Header::plain(head.last_chunk()?)?;
    let end = L3 + ip.total_len();
    let (source, destination) = (ip.source(), ip.destination());
    if end > total || check_v6(source, destination, false).is_err() {
        return None;
    }
    let upper = upper(ip.next_header(), behind, end - HEAD6)?;
    *headers = Headers {
        network: Network::V6,
        protocol: ip.next_header(),
        tcp_flags: upper.tcp_flags,
        l3: L3 as u16,
        l4: HEAD6 as u16,
        end: end as u32,
        ports: upper.ports,
        source: source.into(),
        destination: destination.into(),
        fragment: None,
        fragment_len: 0,
        transport_checksum: upper.checksum,
    };
    Some(())
}

/// Reads the upper header at the start of `bytes`, of a packet with `len` bytes from there on.
#[inline(always)]
fn upper(protocol: Protocol, bytes: &[u8], len: usize) -> Option<Upper> {
    match protocol {
        Protocol::UDP => {
            let (udp, _) = UdpHeader::parse(bytes).ok()?;
            (usize::from(udp.total_len()) == len).then(|| Upper {
                ports: (udp.source_port(), udp.destination_port()),
                tcp_flags: TcpFlags(0),
                checksum: Some(udp.checksum()).filter(|sum| *sum != 0),
            })
        }
        Protocol::TCP => {
            let (tcp, _) = TcpHeader::parse(&bytes[..len.min(bytes.len())]).ok()?;
            Some(Upper {
                ports: (tcp.source_port(), tcp.destination_port()),
                tcp_flags: tcp.flags(),
                checksum: Some(tcp.checksum()),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::parse::Bytes;
    use proptest::prelude::*;
    use weft_wire::build::Packet;

    fn frame(v6: bool, kind: u8, len: usize) -> Vec<u8> {
        let packet = match v6 {
            false => Packet::ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into()),
            true => Packet::ip(
                "fd00::1".parse().expect("an address"),
                "fd00::2".parse().expect("an address"),
            ),
        };
        let packet = match kind {
            0 => packet.udp(1000, 53),
            1 => packet.tcp(1000, 80).mss(1400),
            2 => packet.udp(1000, 53).no_checksum(),
            3 => packet.sctp(1, 2, 3),
            _ => packet.echo_request(1, 2),
        };
        packet.payload_len(len).build()
    }

    fn read_both(first: &[u8], total: usize) -> Option<(Headers, Headers)> {
        let (mut short, mut long) = (Headers::default(), Headers::default());
        if !read(first, total, &mut short) {
            return None;
        }
        let read = Bytes { first, total }.read_any(&mut long);
        assert_eq!(read, Ok(()), "{short:?}");
        Some((short, long))
    }

    proptest! {
        #[test]
        fn what_goes_the_short_way_is_read_alike_on_the_long(
            (v6, kind, len) in (any::<bool>(), 0_u8..5, 0_usize..60),
            changes in prop::collection::vec((0_usize..70, any::<u8>()), 0..3),
            (cut, more) in (0_usize..130, 0_usize..3),
        ) {
            let mut frame = frame(v6, kind, len);
            for (at, byte) in changes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            let first = &frame[..frame.len().min(cut)];
            if let Some((short, long)) = read_both(first, first.len() + 40 * more) {
                prop_assert_eq!(format!("{short:?}"), format!("{long:?}"));
            }
        }
    }

    #[test]
    fn most_packets_go_the_short_way() {
        for v6 in [false, true] {
            for kind in 0..3 {
                let mut frame = frame(v6, kind, 18);
                assert!(read_both(&frame, frame.len()).is_some());
                // Ethernet pads short frames.
                frame.extend([0; 6]);
                assert!(read_both(&frame, frame.len()).is_some());
                assert!(read_both(&frame[..frame.len() - 6], 2000).is_some());
            }
        }
    }
}
