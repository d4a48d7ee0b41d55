//! Another source for connections whose replies would not come back this way.

use std::net::IpAddr;

use crate::drop_reason::DropReason;
use crate::packet::{Packet, PortKind};
use crate::pipeline::Context;
use crate::table::fib::Route;
use crate::table::flow::{Tick, Tuple};
use crate::table::service::{Backend, Frontend};

/// Ports of this node's address that translated sources have. None of those Linux gives its own connections
/// (net.ipv4.ip_local_port_range, 32768 to 60999), which also have that address.
pub(super) const PORTS: std::ops::Range<u16> = 1024..32768;

/// Ports tried. Where 95 of 100 are taken one of them is free in all but one of 700 cases.
const TRIES: u16 = 128;

/// Address and port that go on as the connection's source.
pub(super) fn of(
    packet: &Packet,
    frontend: &Frontend,
    backend: &Backend,
    context: &mut Context<'_>,
) -> Result<(IpAddr, u16), DropReason> {
    let headers = &packet.headers;
    let there = (backend.address, backend.port);
    if needs_translation(packet, frontend, backend, context) {
        let own = own_address(packet, backend, context).ok_or(DropReason::SourcePorts)?;
        let ports = ports_of(context.worker, context.workers);
        return free_port(packet, own, ports, there, context);
    }
    let (source, port) = (headers.source, headers.ports.0);
    if is_free(packet, (source, port), there, context) {
        return Ok((source, port));
    }
    // The client speaks with that backend from that port already, past the service or through another one.
    free_port(packet, source, PORTS, there, context)
}

/// The source instead of the client's: `weft0`'s address, from which every node sends to the others. But the node's
/// stack takes no packet from one of its own addresses (Linux `fib_validate_source`): when it is client and backend
/// at once, or answers a client outside, the source is the gateway's.
fn own_address(packet: &Packet, backend: &Backend, context: &Context<'_>) -> Option<IpAddr> {
    let (node, client) = (context.node, packet.headers.source);
    let from_here = packet.rx_kind == PortKind::Node || packet.outside.is_some();
    let to_itself = from_here && node.owns(backend.address);
    match client {
        IpAddr::V4(_) if to_itself => Some(node.gateway4.into()),
        IpAddr::V6(_) if to_itself => Some(node.gateway6.into()),
        IpAddr::V4(_) => node.node_port4.map(IpAddr::V4),
        IpAddr::V6(_) => node.node_port6.map(IpAddr::V6),
    }
}

/// Ports a worker gives: no two have one in common.
pub(super) fn ports_of(worker: u16, workers: u16) -> std::ops::Range<u16> {
    let each = PORTS.len() as u16 / workers.max(1);
    let first = PORTS.start + worker.min(workers.saturating_sub(1)) * each;
    first..first + each
}

/// Replies come to this node when the client is a pod of it or itself; but not to a client that is its own backend,
/// nor to the node itself from a node, which answers past the tunnel. A client outside gets them from nobody but a pod
/// of this node: the node's own stack would answer it at once, with a source that is not the service.
fn needs_translation(
    packet: &Packet,
    frontend: &Frontend,
    backend: &Backend,
    context: &Context<'_>,
) -> bool {
    let client = packet.headers.source;
    if client == backend.address {
        return true;
    }
    let is_weft0 = match client {
        IpAddr::V4(client) => context.node.node_port4 == Some(client),
        IpAddr::V6(client) => context.node.node_port6 == Some(client),
    };
    let backend_is = context.tables.fib().lookup(backend.address);
    if packet.outside.is_some() {
        return !matches!(backend_is, Route::Local(_));
    }
    match packet.rx_kind {
        PortKind::Pod => false,
        PortKind::Node if context.node.owns(client) => {
            context.node.owns(backend.address)
                || !is_weft0 && context.tables.is_node_address(backend.address)
        }
        PortKind::Node | PortKind::Uplink => {
            !frontend.keeps_source && matches!(backend_is, Route::Remote(_))
        }
    }
}

/// A port of `source` from which nobody speaks with `there` yet.
pub(super) fn free_port(
    packet: &Packet,
    source: IpAddr,
    ports: std::ops::Range<u16>,
    there: (IpAddr, u16),
    context: &mut Context<'_>,
) -> Result<(IpAddr, u16), DropReason> {
    let count = ports.len() as u16;
    if count == 0 {
        return Err(DropReason::SourcePorts);
    }
    let hash = packet.track.hash;
    let from = (((hash >> 32) * u64::from(count)) >> 32) as u16;
    // An odd step through a number of ports that mostly is even: it rarely comes back to where it was.
    let step = (hash as u16 % count) | 1;
    let mut at = from;
    for _ in 0..TRIES.min(count) {
        let port = ports.start + at;
        if is_free(packet, (source, port), there, context) {
            return Ok((source, port));
        }
        at = ((u32::from(at) + u32::from(step)) % u32::from(count)) as u16;
    }
    Err(DropReason::SourcePorts)
}

fn is_free(
    packet: &Packet,
    (source, port): (IpAddr, u16),
    there: (IpAddr, u16),
    context: &mut Context<'_>,
) -> bool {
    let reply = Tuple::new(there.0, source, (there.1, port));
    let now = Tick::of_ns(context.now_ns);
    let protocol = packet.headers.protocol.0;
    reply.is_none_or(|it| context.flows.make_way(it, protocol, now))
}
