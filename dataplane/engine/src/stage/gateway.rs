//! What:   is the pods' gateway: answers ARP, neighbour discovery and ping for it, in place.
//! Reads:  node (gateway addresses and MAC), port.
//! Writes: the whole frame of a packet it answers, `verdict`.
//! Drops:  all other ARP and neighbour discovery, and whatever else is sent to the gateway, but for what may be
//!         answers of the node's own stack to itself.
//! Order:  behind source, so that an answer goes to who asked; in front of connection tracking and
//!         routing, which the gateway's own traffic is none of.

use std::net::{IpAddr, Ipv6Addr};

use weft_wire::answer::{self, AnswerError};
use weft_wire::icmp::{v4, v6};
use weft_wire::neighbour::{self, NeighbourOption, NeighbourOptions};
use weft_wire::{
    ArpOperation, ArpPacket, EthernetHeader, IcmpHeader, Ipv4Header, Ipv6Header, MacAddr,
    NeighbourSolicitation, Protocol, checksum, ipv4,
};
use weft_xsk::Umem;

use super::parse;
use crate::chain;
use crate::counters::Stage;
use crate::drop_reason::DropReason;
use crate::packet::{Network, Packet, PortKind, Verdict};
use crate::pipeline::Context;
use crate::table::policy::has_ports;
use crate::tables::PortEntry;

/// Hops an answer may make; it makes none.
const ANSWER_HOPS: u8 = 64;

pub(crate) fn process(packets: &mut [Packet], context: &mut Context<'_>) {
    super::each(Stage::Gateway, packets, context, |packet, context| {
        let headers = &packet.headers;
        if packet.rx_kind == PortKind::Uplink {
            return Ok(());
        }
        let to_gateway = match headers.destination {
            IpAddr::V4(to) => to == context.node.gateway4 || headers.network == Network::Arp,
            IpAddr::V6(to) => to == context.node.gateway6 || to.is_multicast(),
        };
        if to_gateway || headers.protocol == Protocol::ICMPV6 {
            serve(packet, context)
        } else {
            Ok(())
        }
    });
}

#[inline(never)]
fn serve(packet: &mut Packet, context: &mut Context<'_>) -> Result<(), DropReason> {
    let answered = match packet.headers.network {
        Network::Arp => answer_arp(packet, context)?,
        Network::V6 if is_discovery(packet, context.umem) => answer_solicitation(packet, context)?,
        _ if !is_for_gateway(packet, context) || may_answer_service(packet) => return Ok(()),
        _ => answer_echo(packet, context)?,
    };
    packet.verdict = Verdict::Tx(answered.id);
    Ok(())
}

fn is_for_gateway(packet: &Packet, context: &Context<'_>) -> bool {
    match packet.headers.destination {
        IpAddr::V4(to) => to == context.node.gateway4,
        IpAddr::V6(to) => to == context.node.gateway6,
    }
}

/// The node's stack knows its own connections to services that it answers itself as the gateway's: see
/// `stage/service/source.rs`. What is none of them finds no way.
fn may_answer_service(packet: &Packet) -> bool {
    packet.rx_kind == PortKind::Node && has_ports(packet.headers.protocol)
}

fn answer_arp<'a>(
    packet: &mut Packet,
    context: &mut Context<'a>,
) -> Result<&'a PortEntry, DropReason> {
    const NO: DropReason = DropReason::ArpUnanswered;
    let port = context
        .tables
        .port(packet.rx)
        .ok_or(DropReason::PortUnknown)?;
    let first = packet.frames.first().ok_or(NO)?;
    let request = context
        .umem
        .bytes(first)
        .get(usize::from(packet.headers.l3)..)
        .ok_or(NO)?;
    let (request, _) = ArpPacket::parse(request).map_err(|_| NO)?;
    let request = *request;
    let sender = request.sender_ip();
    // RFC 5227 section 2.1.1: a probe has no sender address yet.
    let sender_known =
        port.kind != PortKind::Pod || sender.is_unspecified() || port.addresses4.contains(&sender);
    if request.operation() != ArpOperation::REQUEST || request.target_ip() != context.node.gateway4
    {
        return Err(NO);
    }
    if request.sender_mac() != port.mac || !sender_known {
        return Err(DropReason::SourceAddress);
    }
    let mac = context.node.gateway_mac;
    overwrite(packet, context, |out| answer::arp_reply(&request, mac, out))?;
    Ok(port)
}

/// Any message of neighbour discovery (RFC 4861), solicitation or not: none is forwarded.
fn is_discovery(packet: &Packet, umem: &Umem) -> bool {
    let headers = &packet.headers;
    let kind = packet
        .frames
        .first()
        .and_then(|first| umem.bytes(first).get(usize::from(headers.l4)));
    headers.protocol == Protocol::ICMPV6
        && headers.has_upper_header()
        && kind.is_some_and(|kind| (v6::ROUTER_SOLICITATION..=v6::REDIRECT).contains(kind))
}

fn answer_solicitation<'a>(
    packet: &mut Packet,
    context: &mut Context<'a>,
) -> Result<&'a PortEntry, DropReason> {
    let port = context
        .tables
        .port(packet.rx)
        .ok_or(DropReason::PortUnknown)?;
    let asker = read_solicitation(packet, port, context).ok_or(DropReason::NeighbourUnanswered)?;
    let (target, mac) = (context.node.gateway6, context.node.gateway_mac);
    overwrite(packet, context, |out| {
        answer::neighbour_advertisement(target, (port.mac, asker), mac, out)
    })?;
    Ok(port)
}

/// Who asks for the gateway; none when the message is not valid (RFC 4861 section 7.1.1).
fn read_solicitation(packet: &Packet, port: &PortEntry, context: &Context<'_>) -> Option<Ipv6Addr> {
    let headers = &packet.headers;
    let bytes = context.umem.bytes(packet.frames.first()?);
    let (from, to) = (usize::from(headers.l4), headers.end as usize);
    let message = bytes.get(from..to)?;
    let (ip, _) = Ipv6Header::parse(bytes.get(usize::from(headers.l3)..)?).ok()?;
    let (solicitation, options_at) = NeighbourSolicitation::parse(message).ok()?;
    let option =
        NeighbourOptions::new(&message[options_at..]).link_address(NeighbourOption::SOURCE_ADDRESS);
    let mac = option.ok()?;
    let sum = checksum::sum(message) + parse::pseudo_sum(headers);
    let probe = ip.source().is_unspecified();
    let group = neighbour::solicited_node(context.node.gateway6);
    let addressed =
        ip.destination() == group || (!probe && ip.destination() == context.node.gateway6);
    let valid = ip.hop_limit() == neighbour::HOP_LIMIT
        && headers.fragment.is_none()
        && checksum::is_valid(sum)
        && addressed
        && solicitation.target() == context.node.gateway6
        && mac.is_none_or(|mac| mac == port.mac && !probe);
    valid.then(|| ip.source())
}

/// Replaces the packet by an answer written from its start.
fn overwrite(
    packet: &mut Packet,
    context: &mut Context<'_>,
    write: impl FnOnce(&mut [u8]) -> Result<usize, AnswerError>,
) -> Result<(), DropReason> {
    chain::trim(&mut packet.frames, 1, context.pool);
    let frame = packet.frames.first_mut().ok_or(DropReason::Truncated)?;
    frame
        .set_len(answer::ANSWER_MAX)
        .map_err(|_| DropReason::NoFrame)?;
    let len = write(context.umem.bytes_mut(frame)).map_err(|_| DropReason::NoFrame)?;
    frame.set_len(len).map_err(|_| DropReason::NoFrame)
}

/// Turns a ping of the gateway around: addresses swap, type and TTL change, the rest stays.
fn answer_echo<'a>(
    packet: &mut Packet,
    context: &mut Context<'a>,
) -> Result<&'a PortEntry, DropReason> {
    const NO: DropReason = DropReason::GatewayTraffic;
    let port = context
        .tables
        .port(packet.rx)
        .ok_or(DropReason::PortUnknown)?;
    let headers = packet.headers;
    let (l3, l4) = (usize::from(headers.l3), usize::from(headers.l4));
    let seed = match (headers.network, headers.protocol, headers.fragment) {
        (Network::V4, Protocol::ICMP, None) => 0,
        (Network::V6, Protocol::ICMPV6, None) => parse::pseudo_sum(&headers),
        _ => return Err(NO),
    };
    if !checksum::is_valid(chain::sum(
        context.umem,
        &packet.frames,
        l4,
        headers.end as usize,
        seed,
    )) {
        return Err(NO);
    }
    let frame = packet.frames.first_mut().ok_or(NO)?;
    let bytes = context.umem.bytes_mut(frame);
    if !reverse_echo(&mut bytes[l4..], headers.network)
        || !reverse_ip(&mut bytes[l3..], headers.network)
    {
        return Err(NO);
    }
    set_macs(bytes, port.mac, context.node.gateway_mac);
    Ok(port)
}

fn reverse_echo(message: &mut [u8], network: Network) -> bool {
    let (request, reply) = match network {
        Network::V4 => (v4::ECHO_REQUEST, v4::ECHO_REPLY),
        _ => (v6::ECHO_REQUEST, v6::ECHO_REPLY),
    };
    match IcmpHeader::parse_mut(message) {
        Ok((icmp, _)) if (icmp.kind(), icmp.code()) == (request, 0) => {
            let (old, new) = (u16::from(request) << 8, u16::from(reply) << 8);
            let updated = checksum::update_u16(icmp.checksum(), old, new);
            icmp.set_kind(reply, 0);
            icmp.set_checksum(updated);
            true
        }
        _ => false,
    }
}

fn reverse_ip(packet: &mut [u8], network: Network) -> bool {
    match network {
        Network::V4 => {
            if let Ok((ip, _)) = Ipv4Header::parse_mut(packet) {
                let (source, destination) = (ip.source(), ip.destination());
                ip.set_addresses(destination, source);
                ip.set_ttl(ANSWER_HOPS);
            }
            ipv4::fill_checksum(packet).is_ok()
        }
        _ => match Ipv6Header::parse_mut(packet) {
            Ok((ip, _)) => {
                let (source, destination) = (ip.source(), ip.destination());
                ip.set_source(destination);
                ip.set_destination(source);
                ip.set_hop_limit(ANSWER_HOPS);
                true
            }
            Err(_) => false,
        },
    }
}

fn set_macs(frame: &mut [u8], destination: MacAddr, source: MacAddr) {
    if let Ok((ethernet, _)) = EthernetHeader::parse_mut(frame) {
        ethernet.set_destination(destination);
        ethernet.set_source(source);
    }
}
