//! What:   makes the packet one of the next link: MAC addresses, TTL; bounds the MSS of new connections.
//! Reads:  `egress`, `track`, ports, node, remote nodes.
//! Writes: Ethernet header, TTL or hop limit, MSS option; in the flow table what a SYN announced.
//! Drops:  nothing but packets whose way out went away.
//! Order:  behind route, which checked that the TTL allows it and may have quoted the old bytes; in front of
//!         encap, since MSS and TTL are the inner packet's.

use std::net::IpAddr;

use weft_wire::tcp::{TcpOption, TcpOptions};
use weft_wire::{EthernetHeader, Ipv4Header, Ipv6Header, MacAddr, Protocol, TcpHeader, tcp};

use crate::counters::Stage;
use crate::drop_reason::DropReason;
use crate::packet::{Egress, Network, Packet, PortKind, Track};
use crate::pipeline::Context;
use crate::stage::route::counts_as_hop;
use crate::stage::service;

pub(crate) fn process(packets: &mut [Packet], context: &mut Context<'_>) {
    super::each(Stage::Rewrite, packets, context, rewrite);
}

#[inline]
fn rewrite(packet: &mut Packet, context: &mut Context<'_>) -> Result<(), DropReason> {
    let (destination, source) = macs(&packet.egress, context)?;
    let hop = counts_as_hop(packet);
    let headers = packet.headers;
    let l3 = usize::from(headers.l3);
    let mss_max = opens_connection(packet).then(|| mss_max(packet, context));
    let field = packet.checksum.field();
    let first = packet.frames.first_mut().ok_or(DropReason::Truncated)?;
    let bytes = context.umem.bytes_mut(first);
    if let Ok((ethernet, _)) = EthernetHeader::parse_mut(bytes) {
        ethernet.set_destination(*destination);
        ethernet.set_source(*source);
    }
    if hop {
        let taken = take_hop(&mut bytes[l3..], headers.network);
        debug_assert!(taken, "route drops packets that may not be forwarded");
    }
    if let Some(max) = mss_max {
        let end = (headers.end as usize).min(bytes.len());
        let segment = &mut bytes[usize::from(headers.l4)..end];
        // None: the option is absent or small enough.
        let _ = tcp::clamp_mss(segment, max, field);
        learn(segment, headers.network, packet.track, context);
    }
    Ok(())
}

/// Takes one off the TTL or hop limit of a packet whose header parse looked at.
#[inline(always)]
fn take_hop(packet: &mut [u8], network: Network) -> bool {
    match network {
        Network::V4 => {
            let ip = packet.first_chunk_mut().map(Ipv4Header::of_mut);
            ip.is_some_and(Ipv4Header::decrement_ttl)
        }
        _ => {
            let ip = packet.first_chunk_mut().map(Ipv6Header::of_mut);
            ip.is_some_and(Ipv6Header::decrement_hop_limit)
        }
    }
}

/// Destination and source of the (inner) frame.
#[inline]
fn macs<'a>(
    egress: &'a Egress,
    context: &Context<'a>,
) -> Result<(&'a MacAddr, &'a MacAddr), DropReason> {
    match egress {
        Egress::Local(port) | Egress::Host { port, .. } => {
            let port = context.tables.port(*port).ok_or(DropReason::PortGone)?;
            Ok((&port.mac, &context.node.gateway_mac))
        }
        Egress::Remote(id) => {
            let remote = context.tables.remote(*id).ok_or(DropReason::NoNeighbour)?;
            let own = match remote.vtep {
                IpAddr::V4(_) => &context.node.vtep4_mac,
                IpAddr::V6(_) => &context.node.vtep6_mac,
            };
            let own = own.as_ref().ok_or(DropReason::NoNeighbour)?;
            Ok((&remote.vtep_mac, own))
        }
        Egress::Outside(next_hop) => {
            let port = context.tables.port(next_hop.port);
            Ok((&next_hop.mac, &port.ok_or(DropReason::PortGone)?.mac))
        }
        Egress::Unknown => Err(DropReason::PortGone),
    }
}

#[inline]
fn opens_connection(packet: &Packet) -> bool {
    let headers = &packet.headers;
    headers.protocol == Protocol::TCP && headers.tcp_flags.is_opening()
}

/// The MSS of a SYN or SYN-ACK says how large the segments may be that its receiver sends back; they take
/// the same way in reverse, so the smaller side bounds them.
#[cold]
fn mss_max(packet: &Packet, context: &Context<'_>) -> u16 {
    let mtu = mtu_of_sender(packet, context).min(mtu_of_receiver(packet, context));
    let ip_len = match packet.headers.network {
        Network::V4 => Ipv4Header::LEN,
        _ => Ipv6Header::LEN,
    };
    let mss = (mtu as usize).saturating_sub(ip_len + TcpHeader::LEN);
    u16::try_from(mss).unwrap_or(u16::MAX)
}

/// The MSS when a SYN names none (RFC 9293 section 3.7.1).
const fn mss_default(network: Network) -> u16 {
    match network {
        Network::V4 => 536,
        _ => 1220,
    }
}

/// The least MSS believed, as Linux's tcp_min_snd_mss: less would make a packet of every few bytes.
const MSS_MIN: u16 = 48;

/// Takes down what the receiver of a SYN will see, the clamped MSS.
#[cold]
fn learn(segment: &[u8], network: Network, track: Track, context: &mut Context<'_>) {
    let Some(flow) = track.flow else { return };
    let mut mss = mss_default(network);
    let mut window_scale = None;
    let options = TcpOptions::of(segment).into_iter().flatten();
    for option in options.map_while(Result::ok) {
        match option {
            TcpOption::MaximumSegment(announced) => mss = announced.max(MSS_MIN),
            TcpOption::WindowScale(shift) => window_scale = Some(shift),
            _ => {}
        }
    }
    context
        .flows
        .learn(flow, track.direction, mss, window_scale);
}

fn mtu_of_sender(packet: &Packet, context: &Context<'_>) -> u32 {
    let port = context.tables.port(packet.rx);
    match packet.rx_kind {
        PortKind::Uplink => {
            let remote = packet.tunnel.and_then(|id| context.tables.remote(id));
            remote.map_or(context.node.outside_mtu, |remote| remote.inner_mtu)
        }
        PortKind::Node if !context.node.owns(packet.client()) => context.node.outside_mtu,
        PortKind::Node | PortKind::Pod => {
            port.map_or(context.node.outside_mtu, |port| port.tcp_mtu)
        }
    }
}

fn mtu_of_receiver(packet: &Packet, context: &Context<'_>) -> u32 {
    let outside = context.node.outside_mtu;
    let of_port = |id| context.tables.port(id).map_or(outside, |port| port.tcp_mtu);
    match packet.egress {
        Egress::Local(port) | Egress::Host { port, own: true } => of_port(port),
        Egress::Remote(id) => context
            .tables
            .remote(id)
            .map_or(outside, |remote| remote.inner_mtu),
        Egress::Host { own: false, .. } => {
            service::client_mtu(packet, context).map_or(outside, |mtu| mtu.min(outside))
        }
        Egress::Outside(_) | Egress::Unknown => outside,
    }
}
