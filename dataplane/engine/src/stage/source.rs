//! What:   no spoofing: a packet may only come from where it says it does.
//! Reads:  port (MAC, addresses), node, FIB, the node a tunnel packet came from, services (direct server return).
//! Writes: `admitted`, `handed`.
//! Drops:  foreign source MACs and addresses; UDP from a pod to a node's VXLAN port.
//! Order:  behind decap, since inner addresses count; in front of everything that answers, remembers or
//!         decides by address.

use std::net::IpAddr;

use weft_wire::{EthernetHeader, Protocol};

use crate::counters::Stage;
use crate::drop_reason::DropReason;
use crate::outside;
use crate::packet::{Network, Packet, PortKind};
use crate::pipeline::Context;
use crate::stage::service;
use crate::table::fib::Route;
use crate::tables::PortEntry;

pub(crate) fn process(packets: &mut [Packet], context: &mut Context<'_>) {
    super::each(Stage::Source, packets, context, check);
}

#[inline]
fn check(packet: &mut Packet, context: &mut Context<'_>) -> Result<(), DropReason> {
    match packet.rx_kind {
        PortKind::Uplink if packet.outside.is_some() => outside::check_source(packet, context)?,
        PortKind::Uplink => check_remote(packet, context)?,
        PortKind::Pod | PortKind::Node => {
            let port = context
                .tables
                .port(packet.rx)
                .ok_or(DropReason::PortUnknown)?;
            check_mac(packet, port, context)?;
            if packet.headers.network == Network::Arp {
                // Its sender is checked where it is answered.
                return Ok(());
            }
            match packet.rx_kind {
                PortKind::Pod => check_pod(packet, port, context)?,
                _ => check_node(packet.headers.source, context)?,
            }
        }
    }
    // What is decided from here on may be said of all fragments of this datagram.
    packet.admitted = true;
    if packet.rx_kind == PortKind::Pod && forges_tunnel(packet, context) {
        return Err(DropReason::VtepPort);
    }
    Ok(())
}

#[inline]
fn check_mac(packet: &Packet, port: &PortEntry, context: &Context<'_>) -> Result<(), DropReason> {
    let first = packet.frames.first().ok_or(DropReason::Truncated)?;
    match EthernetHeader::parse(context.umem.bytes(first)) {
        Ok((ethernet, _)) if ethernet.source() == port.mac => Ok(()),
        _ => Err(DropReason::SourceMac),
    }
}

#[inline]
fn check_pod(packet: &Packet, port: &PortEntry, context: &Context<'_>) -> Result<(), DropReason> {
    if port.owns(packet.headers.source) || speaks_link_local(packet, context) {
        Ok(())
    } else {
        Err(DropReason::SourceAddress)
    }
}

/// Every interface has a link-local address nobody gave it; with it (or, checking it for duplicates, with
/// none) a pod may talk to its gateway, and not further.
#[cold]
fn speaks_link_local(packet: &Packet, context: &Context<'_>) -> bool {
    let (IpAddr::V6(source), IpAddr::V6(destination)) =
        (packet.headers.source, packet.headers.destination)
    else {
        return false;
    };
    // The only group parse lets through is that of a neighbour solicitation.
    let to_gateway = destination == context.node.gateway6 || destination.is_multicast();
    let of_link = source.is_unicast_link_local() && source != context.node.gateway6;
    to_gateway && (of_link || source.is_unspecified())
}

/// The node's stack forwards for the whole world, but never for a pod: those have ports or tunnels of
/// their own.
#[inline]
fn check_node(source: IpAddr, context: &Context<'_>) -> Result<(), DropReason> {
    let honest = match context.tables.fib().lookup(source) {
        Route::Host => true,
        Route::Remote(remote) => context
            .tables
            .remote(remote)
            .is_some_and(|remote| remote.addresses.contains(&source)),
        Route::Local(_) | Route::NoEndpoint | Route::NoService => false,
    };
    if honest {
        Ok(())
    } else {
        Err(DropReason::NodeSource)
    }
}

#[inline]
fn check_remote(packet: &mut Packet, context: &Context<'_>) -> Result<(), DropReason> {
    let remote = packet.tunnel.and_then(|id| context.tables.remote(id));
    if remote.is_some_and(|remote| remote.owns(packet.headers.source)) {
        return Ok(());
    }
    packet.handed = service::is_handed(packet, context);
    if packet.handed {
        Ok(())
    } else {
        Err(DropReason::InnerSource)
    }
}

/// A pod that may use a node's address as source (masquerade) could otherwise send VXLAN that the other
/// node takes for this node's.
#[inline]
fn forges_tunnel(packet: &Packet, context: &Context<'_>) -> bool {
    packet.headers.protocol == Protocol::UDP
        && packet.headers.ports.1 == context.node.vxlan_port
        && context.tables.is_node_address(packet.headers.destination)
}
