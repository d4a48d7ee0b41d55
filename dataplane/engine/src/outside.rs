//! Clients outside the cluster: they reach services by the underlay, without a tunnel.
//!
//! Their packets come to a node port, a load balancer's address or an external IP. Replies leave as the requests came:
//! by the same uplink, to the neighbour that brought the last of them. The connection's entry holds it. The kernel
//! cannot send them, since their source is an address of its own; and its routes say less than the packet: whoever
//! brought it has a way back to the client, also where routing is asymmetric or the client is not where the default
//! route leads. When another router takes over, the client's next packet says so.

use std::net::IpAddr;

use weft_wire::{EthernetHeader, Protocol};

use crate::drop_reason::DropReason;
use crate::packet::{NextHop, Packet, Track};
use crate::pipeline::Context;
use crate::pmtu;
use crate::stage::{conntrack, parse};
use crate::table::fib::Route;
use crate::table::flow::{Direction, FlowKey};
use crate::table::service::FrontendKey;

/// Takes a packet from the underlay that is not the tunnel's. The XDP program steers nothing else here but errors about
/// the tunnel's packets.
///
/// # Errors
/// Why it is none of a client outside.
#[inline(never)]
pub(crate) fn receive(packet: &mut Packet, context: &mut Context<'_>) -> Result<(), DropReason> {
    let headers = &packet.headers;
    let to_node = context.node.addresses.contains(&headers.destination);
    let is_message = matches!(headers.protocol, Protocol::ICMP | Protocol::ICMPV6);
    let is_ours = if !headers.has_upper_header() {
        // Of a later fragment the XDP program knows the first.
        true
    } else if is_message && headers.fragment.is_none() {
        let Some(quoted) = conntrack::quoted(packet, context) else {
            return Err(DropReason::UnderlayUnexpected);
        };
        if to_node && is_of_tunnel(&quoted, context) {
            return pmtu::inspect(packet, context);
        }
        let tuple = quoted.tuple;
        tuple.source() == headers.destination
            && has_frontend(tuple.source(), quoted.protocol, tuple.ports().0, context)
    } else {
        let port = headers.ports.1;
        has_frontend(headers.destination, headers.protocol.0, port, context)
    };
    if !is_ours {
        return Err(DropReason::UnderlayUnexpected);
    }
    packet.outside = Some(neighbour(packet, context)?);
    packet.checksum = parse::partial_checksum(&packet.headers);
    Ok(())
}

fn is_of_tunnel(quoted: &FlowKey, context: &Context<'_>) -> bool {
    Protocol(quoted.protocol) == Protocol::UDP && quoted.tuple.ports().1 == context.node.vxlan_port
}

fn has_frontend(address: IpAddr, protocol: u8, port: u16, context: &Context<'_>) -> bool {
    let key = FrontendKey {
        address,
        protocol,
        port,
    };
    context.tables.frontend(&key).is_some()
}

/// Who brought the packet. A group would have replies sent to many.
fn neighbour(packet: &Packet, context: &Context<'_>) -> Result<NextHop, DropReason> {
    let first = packet.frames.first().ok_or(DropReason::Truncated)?;
    let (ethernet, _) =
        EthernetHeader::parse(context.umem.bytes(first)).map_err(|_| DropReason::Truncated)?;
    let mac = ethernet.source();
    if mac.is_multicast() {
        return Err(DropReason::SourceMac);
    }
    Ok(NextHop {
        port: packet.rx,
        mac,
    })
}

/// Nobody outside has an address of a pod, a service or this node; other nodes are clients like any.
///
/// # Errors
/// [`DropReason::OutsideSource`].
#[inline(never)]
pub(crate) fn check_source(packet: &Packet, context: &Context<'_>) -> Result<(), DropReason> {
    let source = packet.headers.source;
    let node = context.node;
    let of_link = match source {
        IpAddr::V4(source) => source.is_link_local() || source.is_broadcast(),
        IpAddr::V6(source) => source.is_unicast_link_local(),
    };
    let honest = match context.tables.fib().lookup(source) {
        Route::Host => !node.owns(source),
        Route::Remote(remote) => context
            .tables
            .remote(remote)
            .is_some_and(|remote| remote.addresses.contains(&source)),
        Route::Local(_) | Route::NoEndpoint | Route::NoService => false,
    };
    if honest && !of_link {
        Ok(())
    } else {
        Err(DropReason::OutsideSource)
    }
}

/// The neighbour by which a packet leaves that is to a client outside.
#[inline]
pub(crate) fn next_hop(packet: &Packet, context: &Context<'_>) -> Option<NextHop> {
    match packet.track.direction {
        Direction::Reply if packet.next_hop.is_none() => context.flows.next_hop(packet.track.flow?),
        Direction::Original | Direction::Reply => packet.next_hop,
    }
}

/// The same of a packet built for `receiver` because of the packet `cause`.
pub(crate) fn next_hop_of_built(
    cause: &Packet,
    receiver: IpAddr,
    context: &Context<'_>,
) -> Option<NextHop> {
    if cause.outside.is_some() && cause.client() == receiver {
        return cause.outside;
    }
    let flow = cause.track.flow?;
    let client = context.flows.arriving(flow, Direction::Original)?.source();
    let next_hop = context.flows.next_hop(flow);
    next_hop.filter(|_| client == receiver && cause.track.direction == Direction::Reply)
}

/// Remembers who brought the client's last packet.
#[inline(never)]
pub(crate) fn remember(outside: Option<NextHop>, track: &Track, context: &mut Context<'_>) {
    if let (Some(next_hop), Some(flow)) = (outside, track.flow)
        && track.direction == Direction::Original
        && !track.related
        && track.translated
    {
        context.flows.set_next_hop(flow, next_hop);
    }
}
