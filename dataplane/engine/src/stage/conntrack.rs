//! What:   which connection a packet belongs to, which way it goes, and what it does to the connection. New ones
//!         begin with policy, once they are allowed.
//! Reads:  `headers`, upper headers, flow table.
//! Writes: `track`; the connection's entry.
//! Drops:  nothing.
//! Order:  behind owner: the flow table is this worker's; in front of whatever decides by connection, and of
//!         fragment, since later fragments have no ports and follow their first one.

mod read;

use crate::counters::Stage;
use crate::drop_reason::DropReason;
use crate::outside;
use crate::packet::{Checksum, Headers, Network, NextHop, Packet, Track, Translation};
use crate::pipeline::Context;
use crate::stage::service;
use crate::table::flow::{FlowKey, Seen, Tick, Tracked, Tuple, Upper};
use crate::table::service::BackendId;

pub(crate) use read::flow_hash;

use read::Message;

pub(crate) fn process(packets: &mut [Packet], context: &mut Context<'_>) {
    let under = Under {
        now: Tick::of_ns(context.now_ns),
        epoch: context.tables.epoch() as u32,
    };
    super::each(Stage::Conntrack, packets, context, |packet, context| {
        let network = packet.headers.network;
        if matches!(network, Network::V4 | Network::V6) {
            track(packet, under, context)
        } else {
            Ok(())
        }
    });
}

/// What is the same for all packets of a batch.
#[derive(Clone, Copy)]
struct Under {
    now: Tick,
    /// Version of the tables, as an entry holds it.
    epoch: u32,
}

#[inline]
fn track(packet: &mut Packet, under: Under, context: &mut Context<'_>) -> Result<(), DropReason> {
    let headers = &mut packet.headers;
    let first = packet.frames.first_mut().ok_or(DropReason::Truncated)?;
    let bytes = context.umem.bytes_mut(first);
    let Some(upper) = read::upper(headers, bytes) else {
        return track_any(packet, under.now, context);
    };
    let Some(tuple) = Tuple::new(headers.source, headers.destination, headers.ports) else {
        return Ok(());
    };
    let whole = Whole {
        bytes,
        headers,
        checksum: &packet.checksum,
        outside: &packet.outside,
        sought: &packet.sought,
        track: &mut packet.track,
        translation: &mut packet.translation,
    };
    match tuple {
        // What follows is compiled for each family.
        Tuple::V4(tuple) => track_whole(whole, tuple, upper, (under, context)),
        Tuple::V6(tuple) => track_whole(whole, tuple, upper, (under, context)),
    }
    Ok(())
}

/// What is looked at and changed of a whole packet of TCP or UDP. By reference, since most of it matters rarely.
struct Whole<'a> {
    bytes: &'a mut [u8],
    headers: &'a mut Headers,
    checksum: &'a Checksum,
    outside: &'a Option<NextHop>,
    sought: &'a bool,
    track: &'a mut Track,
    translation: &'a mut Option<Translation>,
}

#[inline(always)]
fn track_whole(
    whole: Whole<'_>,
    tuple: impl Into<Tuple>,
    upper: Upper,
    (under, context): (Under, &mut Context<'_>),
) {
    let tuple = tuple.into();
    let protocol = whole.headers.protocol.0;
    let seen = seen(whole.headers, FlowKey { tuple, protocol }, upper, context);
    whole.track.hash = seen.hash;
    let Some(Tracked::Flow {
        flow,
        direction,
        translated,
        decided,
        ..
    }) = context.flows.follow(&seen, under.now)
    else {
        return;
    };
    *whole.track = Track {
        flow: Some(flow),
        direction,
        translated: false,
        decided,
        ..*whole.track
    };
    if !translated {
        return;
    }
    if whole.outside.is_some() {
        let track = Track {
            translated,
            ..*whole.track
        };
        outside::remember(*whole.outside, &track, context);
    }
    // What was decided under these tables has its backend, and needs no more than its other addresses and ports.
    if decided.epoch == under.epoch && !*whole.sought {
        let onward = context.flows.onward(&tuple, (flow, direction));
        let field = whole.checksum.field();
        if service::translate_plain(whole.bytes, whole.headers, onward, field) {
            *whole.translation = Some(Translation {
                came: tuple,
                chosen: None,
            });
            return;
        }
    }
    // The stage does it.
    whole.track.translated = true;
}

/// Any packet.
#[inline(never)]
fn track_any(packet: &mut Packet, now: Tick, context: &mut Context<'_>) -> Result<(), DropReason> {
    let headers = &packet.headers;
    let first = packet.frames.first().ok_or(DropReason::Truncated)?;
    let seed = context.flows.seed();
    let seen = match read::message(headers, context.umem.bytes(first)) {
        Message::Packet(key, upper) => seen(headers, key, upper, context),
        Message::Error(quoted) => return relate(packet, quoted, now, context),
        Message::None => {
            packet.track.hash = read::flow_hash(headers, seed);
            return Ok(());
        }
    };
    // All fragments of a datagram take one path through the underlay, and later ones have no ports.
    packet.track.hash = match headers.fragment {
        None => seen.hash,
        Some(_) => read::flow_hash(headers, seed),
    };
    match context.flows.follow(&seen, now) {
        Some(tracked) => note_known(packet, tracked, context),
        None => Ok(()),
    }
}

#[inline(always)]
fn seen(headers: &Headers, key: FlowKey, upper: Upper, context: &Context<'_>) -> Seen {
    Seen {
        key,
        hash: key.hash(context.flows.seed()),
        len_bytes: headers.ip_len() as u32,
        upper,
    }
}

/// Notes the connection of a packet, and with it who brought a client's.
#[inline(always)]
fn note_known(
    packet: &mut Packet,
    tracked: Tracked,
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    note(packet, tracked)?;
    if packet.outside.is_some() {
        outside::remember(packet.outside, &packet.track, context);
    }
    Ok(())
}

#[inline(always)]
fn note(packet: &mut Packet, tracked: Tracked) -> Result<(), DropReason> {
    match tracked {
        Tracked::Flow {
            flow,
            direction,
            is_new,
            translated,
            decided,
        } => {
            packet.track = Track {
                flow: Some(flow),
                direction,
                is_new,
                translated,
                decided,
                ..packet.track
            };
            Ok(())
        }
        Tracked::Stray => Ok(()),
        Tracked::Full => Err(DropReason::FlowTableFull),
        Tracked::Taken => Err(DropReason::SourcePorts),
    }
}

/// What the table is told of a packet that can be part of a connection.
#[inline(never)]
fn seen_again(packet: &Packet, context: &Context<'_>) -> Option<Seen> {
    let first = packet.frames.first()?;
    match read::message(&packet.headers, context.umem.bytes(first)) {
        Message::Packet(key, upper) => {
            // A connection is known by what its packets come with.
            let tuple = packet.translation.map_or(key.tuple, |it| it.came);
            let key = FlowKey { tuple, ..key };
            Some(seen(&packet.headers, key, upper, context))
        }
        Message::Error(_) | Message::None => None,
    }
}

/// Looks once more for the connection of a packet that had none. True when there is one now.
#[inline(never)]
pub(super) fn follow(packet: &mut Packet, context: &mut Context<'_>) -> bool {
    let now = Tick::of_ns(context.now_ns);
    let tracked = seen_again(packet, context).and_then(|seen| context.flows.follow(&seen, now));
    tracked.is_some_and(|tracked| note(packet, tracked).is_ok())
}

/// Begins the connection of a packet that has none; some begin none.
pub(super) fn begin(packet: &mut Packet, context: &mut Context<'_>) -> Result<(), DropReason> {
    let now = Tick::of_ns(context.now_ns);
    let Some(seen) = seen_again(packet, context) else {
        return Ok(());
    };
    let tracked = match packet.translation {
        None => context.flows.begin(&seen, now),
        Some(translation) => {
            let headers = &packet.headers;
            let there = Tuple::new(headers.source, headers.destination, headers.ports);
            let reply = there.ok_or(DropReason::SourcePorts)?.mirrored();
            let backend = translation.chosen.map_or(BackendId::NONE, |(_, it)| it);
            context.flows.begin_translated(&seen, reply, backend, now)
        }
    };
    note_known(packet, tracked, context)?;
    if let (Some(direct), Some(flow)) = (packet.direct, packet.track.flow) {
        context.flows.set_backend(flow, direct.backend);
    }
    Ok(())
}

/// What names the packet that an ICMP error quotes.
pub(crate) fn quoted(packet: &Packet, context: &Context<'_>) -> Option<FlowKey> {
    let first = packet.frames.first()?;
    match read::message(&packet.headers, context.umem.bytes(first)) {
        Message::Error(quoted) => Some(quoted.key),
        Message::Packet(..) | Message::None => None,
    }
}

/// An ICMP error belongs to the connection of the packet it quotes, and goes against it.
#[cold]
fn relate(
    packet: &mut Packet,
    quoted: read::Quoted,
    now: Tick,
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    let seed = context.flows.seed();
    packet.track.hash = read::flow_hash(&packet.headers, seed);
    // Looked up as an answer to the quoted packet: past a translation that is the tuple known here. Who
    // is not the quoted packet's sender has no business with an error about it.
    let key = quoted.key.mirrored();
    if quoted.key.tuple.source() == packet.headers.destination
        && let Some((flow, direction)) = context.flows.find(&key, key.hash(seed), now)
    {
        packet.track = Track {
            flow: Some(flow),
            direction,
            related: true,
            translated: context.flows.is_translated(flow),
            ..packet.track
        };
    }
    Ok(())
}
