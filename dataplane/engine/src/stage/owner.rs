//! What:   which worker goes on with the packet, so that both directions of a connection meet in one flow table.
//! Reads:  `headers`, FIB, ports, this worker's number.
//! Writes: `verdict` of packets for another worker.
//! Drops:  nothing.
//! Order:  behind gateway, whose answers need no connection; in front of conntrack, the first to remember.

use crate::counters::Stage;
use crate::packet::{Network, Packet, PortId, PortKind, Verdict};
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

/// The worker of the lowest local port that the packet crosses; uplinks do not count, since the underlay
/// chooses their queues. It depends on addresses only and both ways of a connection cross the same ports,
/// so its replies, its fragments and ICMP errors about it have the same owner.
#[inline]
fn owner(packet: &Packet, context: &Context<'_>) -> Option<u16> {
    if !matches!(packet.headers.network, Network::V4 | Network::V6) {
        return None;
    }
    let from = (packet.rx_kind != PortKind::Uplink).then_some(packet.rx);
    let to = destination_port(packet, context);
    let port = from.into_iter().chain(to).min()?;
    Some(context.tables.port(port)?.worker)
}

#[inline]
fn destination_port(packet: &Packet, context: &Context<'_>) -> Option<PortId> {
    match context.tables.fib().lookup(packet.headers.destination) {
        Route::Local(port) => Some(port),
        Route::Host => context.node.node_port,
        Route::Remote(_) | Route::NoService | Route::NoEndpoint => None,
    }
}
