//! What:   finds the headers of a frame and checks every length on the way; trims the packet to what its
//!         IP header says; tells partial transport checksums.
//! Reads:  port (its MAC), frames.
//! Writes: `headers`, `checksum`, length of the frames.
//! Drops:  whatever is malformed, tagged, for others, for groups, or dictates its path.
//! Order:  first; everything after relies on the offsets found here lying inside the first frame.

mod plain;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_wire::icmp::v6;
use weft_wire::ipv4::Ipv4Options;
use weft_wire::{
    ArpPacket, EtherType, EthernetHeader, IcmpHeader, Ipv4Header, Ipv6Chain, Ipv6FragmentHeader,
    Layer, MacAddr, ParseError, Protocol, SctpHeader, TcpHeader, UdpHeader, checksum,
};
use weft_xsk::{FramePool, Umem};

use crate::chain;
use crate::counters::Stage;
use crate::drop_reason::DropReason;
use crate::packet::{Checksum, Headers, Network, Packet, PortKind};
use crate::pipeline::Context;

pub(crate) fn process(packets: &mut [Packet], context: &mut Context<'_>) {
    super::each(Stage::Parse, packets, context, parse);
}

#[inline]
fn parse(packet: &mut Packet, context: &mut Context<'_>) -> Result<(), DropReason> {
    let port = context.tables.port(packet.rx);
    let port = port.ok_or(DropReason::PortUnknown)?;
    let uplink = packet.rx_kind == PortKind::Uplink;
    let own_mac = if uplink {
        &port.mac
    } else {
        &context.node.gateway_mac
    };
    check_receiver(packet, context.umem, own_mac)?;
    headers(packet, context.umem, context.pool)?;
    if !uplink {
        // A checksum from the wire is the sender's own: it is never taken for a partial one.
        packet.checksum = partial_checksum(&packet.headers);
    }
    Ok(())
}

/// Groups are for later: neighbour discovery of the gateway comes to one.
#[inline]
fn check_receiver(packet: &Packet, umem: &Umem, own: &MacAddr) -> Result<(), DropReason> {
    let first = packet.frames.first().ok_or(DropReason::Truncated)?;
    let (ethernet, _) =
        EthernetHeader::parse(umem.bytes(first)).map_err(|_| DropReason::Truncated)?;
    let to = ethernet.destination();
    if to == *own || to.is_multicast() || *own == MacAddr::ZERO {
        Ok(())
    } else {
        Err(DropReason::DestinationMac)
    }
}

/// Parses a frame whose receiver was checked, and trims the packet to its IP length.
#[inline(always)]
pub(crate) fn headers(
    packet: &mut Packet,
    umem: &Umem,
    pool: &mut FramePool,
) -> Result<(), DropReason> {
    let total = match packet.frames.as_slice() {
        [one] => one.len(),
        _ => packet.total_len(),
    };
    let first = packet.frames.first().ok_or(DropReason::Truncated)?;
    let frame = Bytes {
        first: umem.bytes(first),
        total,
    };
    frame.read(&mut packet.headers)?;
    if (packet.headers.end as usize) < total {
        chain::trim(&mut packet.frames, packet.headers.end as usize, pool);
    }
    Ok(())
}

/// The packet as the parser sees it.
struct Bytes<'a> {
    /// Its first buffer, where all headers must be.
    first: &'a [u8],
    /// Bytes in all its buffers.
    total: usize,
}

impl Bytes<'_> {
    /// Writes `headers` whole, or leaves them without meaning.
    #[inline(always)]
    fn read(&self, headers: &mut Headers) -> Result<(), DropReason> {
        if plain::read(self.first, self.total, headers) {
            return Ok(());
        }
        self.read_any(headers)
    }

    /// As [`Bytes::read`], whatever the packet is.
    #[inline(never)]
    fn read_any(&self, headers: &mut Headers) -> Result<(), DropReason> {
        let (ethernet, l3) =
            EthernetHeader::parse(self.first).map_err(|_| DropReason::Truncated)?;
        let to = ethernet.destination();
        match ethernet.ether_type() {
            EtherType::IPV4 => self.read_v4(l3, headers)?,
            EtherType::IPV6 => self.read_v6(l3, headers)?,
            EtherType::ARP => return self.read_arp(l3, headers),
            tag if tag.is_vlan() => return Err(DropReason::VlanTagged),
            _ => return Err(DropReason::EtherType),
        }
        if to.is_multicast() && !headers.destination.is_multicast() {
            // RFC 1122 section 3.3.6: a link-layer broadcast of a unicast packet is discarded silently.
            return Err(if to.is_broadcast() {
                DropReason::Broadcast
            } else {
                DropReason::Multicast
            });
        }
        Ok(())
    }

    /// The reason for a header that ends beyond the bytes at hand.
    #[cold]
    fn cut(&self) -> DropReason {
        if self.first.len() < self.total {
            DropReason::HeadersSplit
        } else {
            DropReason::Truncated
        }
    }

    fn read_arp(&self, l3: usize, headers: &mut Headers) -> Result<(), DropReason> {
        let (_, len) = ArpPacket::parse(&self.first[l3..]).map_err(|error| match error {
            ParseError::Truncated(_) => self.cut(),
            _ => DropReason::ArpUnanswered,
        })?;
        *headers = Headers {
            network: Network::Arp,
            l3: l3 as u16,
            l4: l3 as u16,
            end: (l3 + len) as u32,
            ..Headers::default()
        };
        Ok(())
    }

    #[inline]
    fn read_v4(&self, l3: usize, headers: &mut Headers) -> Result<(), DropReason> {
        let packet = &self.first[l3..];
        let (ip, len) = Ipv4Header::parse(packet).map_err(|error| match error {
            ParseError::Truncated(_) => self.cut(),
            _ => DropReason::Ipv4Malformed,
        })?;
        let total_len = usize::from(ip.total_len());
        if total_len > self.total - l3 {
            return Err(DropReason::Truncated);
        }
        if !checksum::is_valid(checksum::sum(&packet[..len])) {
            return Err(DropReason::Ipv4Checksum);
        }
        if len > Ipv4Header::LEN {
            check_options(packet)?;
        }
        check_v4(ip.source(), ip.destination())?;
        let fragment = ip.fragment();
        let payload_len = total_len - len;
        *headers = Headers {
            network: Network::V4,
            protocol: ip.protocol(),
            l3: l3 as u16,
            l4: (l3 + len) as u16,
            end: (l3 + total_len) as u32,
            source: ip.source().into(),
            destination: ip.destination().into(),
            fragment,
            fragment_len: payload_len as u16,
            ..Headers::default()
        };
        if fragment.is_some_and(|place| payload_len == 0 || place.end(payload_len).is_none()) {
            return Err(DropReason::FragmentMalformed);
        }
        self.read_upper(headers)
    }

    #[inline]
    fn read_v6(&self, l3: usize, headers: &mut Headers) -> Result<(), DropReason> {
        let walked = Ipv6Chain::walk(&self.first[l3..]);
        let (ip, chain) = walked.map_err(|error| self.explain_v6(error))?;
        if ip.total_len() > self.total - l3 {
            return Err(DropReason::Truncated);
        }
        if chain.routing_type.is_some() {
            return Err(DropReason::SourceRouted);
        }
        *headers = Headers {
            network: Network::V6,
            protocol: chain.protocol,
            l3: l3 as u16,
            l4: l3 as u16 + chain.offset,
            end: (l3 + ip.total_len()) as u32,
            source: ip.source().into(),
            destination: ip.destination().into(),
            ..Headers::default()
        };
        // An atomic fragment (RFC 6946) is a whole packet, never matched with others.
        if let Some((fragment, at)) = chain.fragment.filter(|(fragment, _)| !fragment.is_atomic()) {
            let payload_len = ip.total_len() - usize::from(at) - Ipv6FragmentHeader::LEN;
            if payload_len == 0 || fragment.end(payload_len).is_none() {
                return Err(DropReason::FragmentMalformed);
            }
            headers.fragment = Some(fragment);
            headers.fragment_len = payload_len as u16;
        }
        self.read_upper(headers)?;
        check_v6(ip.source(), ip.destination(), self.is_solicitation(headers))
    }

    #[cold]
    fn explain_v6(&self, error: ParseError) -> DropReason {
        match error {
            ParseError::Truncated(Layer::Ipv6) => self.cut(),
            ParseError::Truncated(_) if self.first.len() < self.total => DropReason::HeadersSplit,
            ParseError::IncompleteChain => DropReason::FirstFragmentShort,
            _ => DropReason::Ipv6Malformed,
        }
    }

    fn is_solicitation(&self, headers: &Headers) -> bool {
        headers.protocol == Protocol::ICMPV6
            && headers.fragment.is_none()
            && self.first.get(usize::from(headers.l4)) == Some(&v6::NEIGHBOUR_SOLICITATION)
    }

    /// The upper header must be whole, also in a first fragment (RFC 7112 section 5, RFC 1858 for IPv4).
    #[inline]
    fn read_upper(&self, headers: &mut Headers) -> Result<(), DropReason> {
        if !headers.has_upper_header() {
            return Ok(());
        }
        let (from, to) = (
            usize::from(headers.l4),
            (headers.end as usize).min(self.first.len()),
        );
        let upper = self.first.get(from..to).ok_or_else(|| self.cut())?;
        let whole = headers.fragment.is_none();
        let read = match headers.protocol {
            Protocol::TCP => TcpHeader::parse(upper).map(|(tcp, _)| {
                headers.tcp_flags = tcp.flags();
                headers.ports = (tcp.source_port(), tcp.destination_port());
                headers.transport_checksum = whole.then(|| tcp.checksum());
            }),
            Protocol::UDP => UdpHeader::parse(upper).and_then(|(udp, _)| {
                headers.ports = (udp.source_port(), udp.destination_port());
                let exact = whole && usize::from(udp.total_len()) == headers.l4_len();
                headers.transport_checksum = Some(udp.checksum()).filter(|sum| exact && *sum != 0);
                if whole {
                    udp.check_total_len(headers.l4_len())
                } else {
                    Ok(())
                }
            }),
            Protocol::SCTP => SctpHeader::parse(upper).map(|(sctp, _)| {
                headers.ports = (sctp.source_port(), sctp.destination_port());
            }),
            Protocol::ICMP | Protocol::ICMPV6 => IcmpHeader::parse(upper).map(|_| ()),
            _ => Ok(()),
        };
        read.map_err(|error| self.explain_upper(error, headers))
    }

    #[cold]
    fn explain_upper(&self, error: ParseError, headers: &Headers) -> DropReason {
        match (error, headers.fragment) {
            (ParseError::Truncated(_), _) if self.first.len() < headers.end as usize => {
                DropReason::HeadersSplit
            }
            (ParseError::Truncated(_), Some(_)) => DropReason::FirstFragmentShort,
            _ => DropReason::TransportMalformed,
        }
    }
}

#[cold]
fn check_options(packet: &[u8]) -> Result<(), DropReason> {
    let options = Ipv4Options::of(packet).map_err(|_| DropReason::Ipv4Malformed)?;
    for option in options {
        match option {
            // RFC 7126 sections 4.3 and 4.4 advise to drop both source routes.
            Ok(option) if option.is_source_route() => return Err(DropReason::SourceRouted),
            Ok(_) => {}
            Err(_) => return Err(DropReason::Ipv4Malformed),
        }
    }
    Ok(())
}

/// RFC 1812 section 5.3.7.
#[inline(always)]
fn check_v4(source: Ipv4Addr, destination: Ipv4Addr) -> Result<(), DropReason> {
    let (from, to) = (source.octets()[0], destination.octets()[0]);
    let is_host = |first: u8| (1..224).contains(&first) && first != 127;
    if is_host(from) && is_host(to) {
        return Ok(());
    }
    if !is_host(from) || to < 224 {
        return Err(DropReason::Martian);
    }
    match to {
        224..240 => Err(DropReason::Multicast),
        _ if destination.is_broadcast() => Err(DropReason::Broadcast),
        _ => Err(DropReason::Martian),
    }
}

/// RFC 4291 sections 2.5.2, 2.5.3 and 2.7. `solicitation`: of a neighbour, which goes to a group, and comes
/// from nobody when it is a duplicate check.
#[inline]
fn check_v6(source: Ipv6Addr, destination: Ipv6Addr, solicitation: bool) -> Result<(), DropReason> {
    let mapped = |address: Ipv6Addr| address.to_ipv4_mapped().is_some();
    let from_bad = source.is_loopback() || source.is_multicast() || mapped(source);
    let from_nobody = source.is_unspecified() && !solicitation;
    let to_bad = destination.is_loopback() || destination.is_unspecified() || mapped(destination);
    if from_bad || from_nobody || to_bad {
        return Err(DropReason::Martian);
    }
    if destination.is_multicast() && !solicitation {
        return Err(DropReason::Multicast);
    }
    Ok(())
}

/// A local stack leaves the pseudo-header's sum in the field of an unfragmented TCP segment or UDP
/// datagram and says so nowhere (Linux `CHECKSUM_PARTIAL`). A complete checksum that happens to equal the
/// sum does no harm: completing it gives the same value.
#[inline]
pub(crate) fn partial_checksum(headers: &Headers) -> Checksum {
    match headers.transport_checksum {
        Some(field) if field == checksum::fold(pseudo_sum(headers)) => Checksum::Partial {
            start: headers.l4,
            offset: match headers.protocol {
                Protocol::TCP => TcpHeader::CHECKSUM_AT as u16,
                _ => UdpHeader::CHECKSUM_AT as u16,
            },
        },
        _ => Checksum::None,
    }
}

/// Sum of the pseudo-header of an unfragmented packet's upper protocol.
#[inline(always)]
pub(crate) fn pseudo_sum(headers: &Headers) -> u32 {
    let len = headers.l4_len();
    match (headers.source, headers.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            checksum::pseudo_v4(source, destination, headers.protocol, len as u16)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            checksum::pseudo_v6(source, destination, headers.protocol, len as u32)
        }
        _ => unreachable!("both addresses come from one header"),
    }
}
