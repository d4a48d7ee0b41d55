//! What:   which worker goes on with the packet, so that both directions of a connection meet in one flow table.
//! Reads:  `headers`, FIB, ports, this worker's number.
//! Writes: `verdict` of packets for another worker.
//! Drops:  nothing.
//! Order:  behind gateway, whose answers need no connection; in front of conntrack, the first to remember.

use weft_wire::TcpFlags;

use crate::counters::Stage;
use crate::packet::{Network, Packet, PortKind, Verdict};
use crate::pipeline::Context;
use crate::table::fib::Route;

pub(crate) fn process(packets: &mut [Packet], context: &mut Context<'_>) {
    if context.workers < 2 {
        return;
    }
    super::each(Stage::Owner, packets, context, |packet, context| {
        let owner = owner(packet, context).unwrap_or(context.worker);
        if owner != context.worker {
            packet.verdict = Verdict::HandOver(owner);
        }
        Ok(())
    });
}

/// The worker of the lowest pod's port that the packet crosses, or of the node's port if it crosses no pod's; uplinks
/// do not count, since the underlay chooses their queues. It depends on addresses only and both ways of a connection
/// cross the same ports, so its replies, its fragments and ICMP errors about it have the same owner.
#[inline]
pub(super) fn owner(packet: &Packet, context: &Context<'_>) -> Option<u16> {
    if !matches!(packet.headers.network, Network::V4 | Network::V6) {
        return None;
    }
    let (to_pod, to_node) = match context.tables.fib().lookup(packet.headers.destination) {
        Route::Local(port) => (Some(port), None),
        Route::Host => (None, context.node.node_port),
        Route::Remote(_) | Route::NoService | Route::NoEndpoint => (None, None),
    };
    // Replies to it are looked for there: see `seek`.
    let of_client = packet.outside.is_some() || packet.handed;
    let to_node = if of_client {
        context.node.node_port
    } else {
        to_node
    };
    let (from_pod, from_node) = match packet.rx_kind {
        PortKind::Pod => (Some(packet.rx), None),
        PortKind::Node => (None, Some(packet.rx)),
        PortKind::Uplink => (None, None),
    };
    let lowest_pod = from_pod.into_iter().chain(to_pod).min();
    let port = lowest_pod.or(from_node).or(to_node)?;
    Some(context.tables.port(port)?.worker)
}

/// Which worker to ask next for the connection of a packet that this one knows none for: a connection to a service is
/// its client's, and the backend's packets do not say that they are part of one. So those that may be are shown to
/// the worker of the client, and come back if that knows nothing either.
pub(super) fn seek(packet: &mut Packet, context: &Context<'_>) -> Option<u16> {
    if context.workers < 2 {
        return None;
    }
    let here = context.worker;
    if packet.sought {
        return owner(packet, context).filter(|it| *it != here);
    }
    let headers = &packet.headers;
    let opens =
        headers.tcp_flags.intersects(TcpFlags::SYN) && !headers.tcp_flags.intersects(TcpFlags::ACK);
    if packet.rx_kind != PortKind::Pod || opens {
        return None;
    }
    let client = match context.tables.fib().lookup(headers.destination) {
        Route::Local(port) => Some(port),
        _ => context.node.node_port,
    };
    let other = context.tables.port(client?)?.worker;
    if other == here {
        return None;
    }
    packet.sought = true;
    Some(other)
}
