//! What:   which connection a packet belongs to, which way it goes, and what it does to the connection.
//! Reads:  `headers`, upper headers, flow table.
//! Writes: `track`; the connection's entry.
//! Drops:  packets of new connections when the table is full and nothing gives way.
//! Order:  behind gateway, whose traffic is no connection; in front of whatever decides by connection, and
//!         of fragment, since later fragments have no ports and follow their first one.

mod read;

use crate::counters::Stage;
use crate::drop_reason::DropReason;
use crate::packet::{Network, Packet, Track};
use crate::pipeline::Context;
use crate::table::flow::{Seen, Tick, Tracked};

pub(crate) use read::flow_hash;

use read::Message;

pub(crate) fn process(packets: &mut [Packet], context: &mut Context<'_>) {
    let now = Tick::of_ns(context.now_ns);
    super::each(Stage::Conntrack, packets, context, |packet, context| {
        let network = packet.headers.network;
        if matches!(network, Network::V4 | Network::V6) {
            track(packet, now, context)
        } else {
            Ok(())
        }
    });
}

#[inline]
fn track(packet: &mut Packet, now: Tick, context: &mut Context<'_>) -> Result<(), DropReason> {
    let headers = &packet.headers;
    let first = packet.frames.first().ok_or(DropReason::Truncated)?;
    let seed = context.flows.seed();
    let (key, upper) = match read::message(headers, context.umem.bytes(first)) {
        Message::Packet(key, upper) => (key, upper),
        Message::Error(quoted) => return relate(packet, quoted, now, context),
        Message::None => {
            packet.track.hash = read::flow_hash(headers, seed);
            return Ok(());
        }
    };
    let hash = key.hash(seed);
    let seen = Seen {
        key,
        hash,
        len_bytes: headers.ip_len() as u32,
        upper,
    };
    // All fragments of a datagram take one path through the underlay, and later ones have no ports.
    packet.track.hash = match headers.fragment {
        None => hash,
        Some(_) => read::flow_hash(headers, seed),
    };
    match context.flows.track(&seen, now) {
        Tracked::Flow {
            flow,
            direction,
            is_new,
        } => {
            packet.track = Track {
                flow: Some(flow),
                direction,
                is_new,
                ..packet.track
            };
            Ok(())
        }
        Tracked::Stray => Ok(()),
        Tracked::Full => Err(DropReason::FlowTableFull),
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
            ..packet.track
        };
    }
    Ok(())
}
