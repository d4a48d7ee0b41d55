//! What:   later fragments do as their datagram's first one did; early ones wait for it.
//! Reads:  `headers`, `admitted`, and what earlier stages decided about first fragments.
//! Writes: `verdict` of later fragments, their addresses, `next_hop` and `direct`; takes the frames of early ones.
//! Drops:  duplicates, overlaps (RFC 5722), what is too early for too long, too many at once.
//! Order:  behind every stage that needs ports to decide; in front of route, which does not.

use std::net::IpAddr;

use weft_wire::Fragment;

use crate::builder::PORTS_MAX;
use crate::counters::Stage;
use crate::drop_reason::DropReason;
use crate::outside;
use crate::packet::{Direct, Network, NextHop, Packet, PortKind, Verdict};
use crate::pipeline::Context;
use crate::stage::service;
use crate::table::fragment::{Arrival, Arrived, EntryId, FragmentKey, FragmentTable};

/// What was decided about a first fragment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decision {
    /// Why it was dropped, if it was.
    dropped: Option<DropReason>,
    /// Source and destination it goes on with, where they were translated.
    addresses: Option<(IpAddr, IpAddr)>,
    /// The neighbour that takes it, if that is to a client outside.
    next_hop: Option<NextHop>,
    /// The node that is to translate it.
    direct: Option<Direct>,
}

/// The worker's fragments.
pub(crate) type Fragments = FragmentTable<Decision, Packet>;

/// Unfinished datagrams of a pod, so that 16 hostile ones do not fill the table; also of all clients outside the
/// cluster, so that those leave the uplink's to other nodes' pods.
const POD_ENTRIES_MAX: u16 = 64;

/// Unfinished datagrams of an uplink or the node: all other nodes' pods share it.
const SHARED_ENTRIES_MAX: u16 = 512;

/// IPv6 fragments of one datagram may name different protocols (RFC 8200 section 4.5).
const ANY_PROTOCOL: u8 = 44;

pub(crate) fn table(seed: u64) -> Fragments {
    FragmentTable::new(PORTS_MAX, seed)
}

pub(crate) fn process(packets: &mut [Packet], context: &mut Context<'_>) {
    let mut seen = 0;
    for packet in packets {
        let Some(fragment) = packet.headers.fragment.filter(|_| packet.admitted) else {
            continue;
        };
        // Dropped first fragments too: the others follow them.
        let first_decided = fragment.is_first() && matches!(packet.verdict, Verdict::Drop(_));
        if packet.is_pending() || first_decided {
            seen += 1;
            follow(packet, fragment, context);
        }
    }
    context.counters.seen(Stage::Fragment, seen);
}

#[inline(never)]
fn follow(packet: &mut Packet, fragment: Fragment, context: &mut Context<'_>) {
    let arrival = arrival(packet, fragment);
    let verdict = match context.fragments.arrive(&arrival, context.now_ns) {
        Arrived::First(entry) => {
            let headers = &packet.headers;
            let decision = Decision {
                dropped: match packet.verdict {
                    Verdict::Drop(reason) => Some(reason),
                    _ => None,
                },
                addresses: packet
                    .translation
                    .map(|_| (headers.source, headers.destination)),
                next_hop: outside::next_hop(packet, context),
                direct: packet.direct,
            };
            context.fragments.decide(entry, decision);
            release(entry, &decision, context);
            context.fragments.settle(entry);
            return;
        }
        Arrived::Follow(decision) => return apply(packet, &decision, context),
        Arrived::Early(entry) => return hold(packet, entry, context),
        Arrived::Duplicate => Verdict::Drop(DropReason::FragmentDuplicate),
        Arrived::Overlap(entry) => {
            let decision = Decision {
                dropped: Some(DropReason::FragmentOverlap),
                addresses: None,
                next_hop: None,
                direct: None,
            };
            release(entry, &decision, context);
            Verdict::Drop(DropReason::FragmentOverlap)
        }
        Arrived::Full => Verdict::Drop(DropReason::FragmentTableFull),
    };
    if packet.is_pending() {
        packet.verdict = verdict;
    }
}

/// Does to a later fragment what was done to the first one.
fn apply(packet: &mut Packet, decision: &Decision, context: &mut Context<'_>) {
    if !packet.is_pending() {
        return;
    }
    if let Some(reason) = decision.dropped {
        packet.verdict = Verdict::Drop(reason);
    } else if let Some(addresses) = decision.addresses {
        service::readdress(packet, addresses, context);
        packet.next_hop = decision.next_hop;
    } else {
        packet.direct = decision.direct;
    }
}

fn arrival(packet: &Packet, fragment: Fragment) -> Arrival {
    let headers = &packet.headers;
    let protocol = match headers.network {
        Network::V6 => ANY_PROTOCOL,
        _ => headers.protocol.0,
    };
    let (source, destination) = match packet.translation {
        None => (headers.source, headers.destination),
        Some(translation) => (translation.came.source(), translation.came.destination()),
    };
    Arrival {
        key: FragmentKey {
            source,
            destination,
            protocol,
            identification: fragment.identification,
        },
        start: fragment.offset,
        end: fragment.offset + headers.fragment_len,
        last: !fragment.more,
        port: packet.rx.0,
        port_entries_max: match packet.rx_kind {
            PortKind::Pod => POD_ENTRIES_MAX,
            PortKind::Uplink if packet.outside.is_some() => POD_ENTRIES_MAX,
            PortKind::Node | PortKind::Uplink => SHARED_ENTRIES_MAX,
        },
    }
}

/// Takes the packet's frames; what stays in the batch is an empty, consumed packet.
fn hold(packet: &mut Packet, entry: EntryId, context: &mut Context<'_>) {
    let cost = packet.frames.len() as u16;
    let (rx, rx_kind, headers) = (packet.rx, packet.rx_kind, packet.headers);
    let early = std::mem::take(packet);
    *packet = match context.fragments.hold(entry, early, cost) {
        Ok(()) => Packet {
            rx,
            rx_kind,
            headers,
            verdict: Verdict::Consumed,
            ..Packet::default()
        },
        Err(early) => Packet {
            verdict: Verdict::Drop(DropReason::FragmentHoldFull),
            ..early
        },
    };
}

/// Lets held fragments go the way of the first one.
fn release(entry: EntryId, decision: &Decision, context: &mut Context<'_>) {
    while let Some(mut packet) = context.fragments.release(entry) {
        if context.room() == 0 {
            context.counters.drop(DropReason::BurstFull);
            context.pool.free_chain(&mut packet.frames);
            continue;
        }
        apply(&mut packet, decision, context);
        context.bear(packet);
    }
}
