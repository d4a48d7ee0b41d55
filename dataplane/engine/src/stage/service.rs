//! What:   services' addresses to backends' and back: a new connection to a frontend gets a backend, packets of known
//!         ones the addresses and ports of the other side's view; ICMP errors about them too.
//! Reads:  `headers`, `track`, services, the connection's entry.
//! Writes: addresses, ports and checksums in the packet, `headers`, `translation`, `direct`; the clients' backends (affinity);
//!         `verdict` of replies to a client of another worker. Bears a reset or an ICMP error where nobody answers.
//! Drops:  what no backend takes, clients outside the source ranges, connections whose backend is gone.
//! Order:  behind conntrack, which knows connections by what their packets come with; in front of policy, whose rules
//!         are about backends, and which lets the connection begin.

mod direct;
mod error;
mod source;
mod translate;

use weft_wire::answer::IcmpError;
use weft_wire::{Protocol, TcpFlags};

use crate::counters::Stage;
use crate::drop_reason::DropReason;
use crate::icmp;
use crate::outside;
use crate::packet::{Headers, Network, Packet, PortKind, Track, Verdict};
use crate::pipeline::Context;
use crate::reset;
use crate::stage::owner;
use crate::table::flow::{Direction, FlowKey, FlowRef, HashSeed, Tuple};
use crate::table::policy::has_ports;
use crate::table::service::{Backend, Chance, Client, Frontend, FrontendKey};

pub(crate) use direct::{client_mtu, is_handed};
pub(crate) use translate::{readdress, restore, translate_plain};

use translate::{translate, translate_from};

/// Seed of the hash by which backends are chosen: no secret, since all nodes have to choose alike.
const CHOICE: HashSeed = HashSeed::new(0x6d61_676c_6576);

pub(crate) fn process(packets: &mut [Packet], context: &mut Context<'_>) {
    super::each(
        Stage::Service,
        packets,
        context,
        |packet, context| match packet.track.flow {
            // It is not to be translated, or conntrack did it with `translate_plain`.
            Some(flow) if !packet.track.translated => match packet.outside {
                Some(_) if packet.translation.is_none() => direct::go_on(packet, flow, context),
                _ => Ok(()),
            },
            Some(flow) => go_on(packet, flow, context),
            None if context.tables.services().is_empty() => Ok(()),
            None => choose(packet, context),
        },
    );
}

/// Translates a packet of a known connection.
#[inline(never)]
fn go_on(packet: &mut Packet, flow: FlowRef, context: &mut Context<'_>) -> Result<(), DropReason> {
    let direction = packet.track.direction;
    if packet.track.related {
        return error::translate(packet, flow, direction, context);
    }
    let (epoch, of_connections) = (
        context.tables.epoch() as u32,
        context.tables.connections_epoch(),
    );
    // What was decided under these tables has its backend.
    if packet.track.decided.epoch != epoch
        && !context.flows.is_allowed(flow, epoch, of_connections)
        && is_gone(flow, context)
    {
        return end(packet, flow, direction, context);
    }
    let Some((came, there)) = context.flows.passage(flow, direction) else {
        // It ended earlier in this batch.
        return begin_anew(packet, context);
    };
    if packet.sought {
        return go_back(packet, flow, there, context);
    }
    translate_from(packet, (came, there), context)
}

/// Translates a packet another worker asked about.
#[cold]
fn go_back(
    packet: &mut Packet,
    flow: FlowRef,
    there: Tuple,
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    let (epoch, of_connections) = (
        context.tables.epoch() as u32,
        context.tables.connections_epoch(),
    );
    let asked_by = fragments_at(packet, context);
    translate(packet, there, context)?;
    if let Some(worker) = asked_by
        && context.flows.is_allowed(flow, epoch, of_connections)
    {
        packet.next_hop = outside::next_hop(packet, context);
        // There it is another connection, or none.
        packet.track.flow = None;
        packet.verdict = Verdict::HandOver(worker);
    }
    Ok(())
}

/// The worker to which a first fragment goes back translated, since the later ones wait for it there: it asked whose
/// connection this is.
fn fragments_at(packet: &Packet, context: &Context<'_>) -> Option<u16> {
    packet.headers.fragment?;
    owner::owner(packet, context).filter(|it| *it != context.worker)
}

/// Translates a packet whose connection another one of the batch began.
pub(super) fn follow(packet: &mut Packet, context: &mut Context<'_>) -> Result<(), DropReason> {
    let Track {
        flow: Some(flow),
        direction,
        translated: true,
        ..
    } = packet.track
    else {
        return Ok(());
    };
    match context.flows.translation(flow, direction) {
        Some(there) => translate(packet, there, context),
        None => Ok(()),
    }
}

/// Chooses a backend where the packet is addressed to a service.
#[inline(never)]
fn choose(packet: &mut Packet, context: &mut Context<'_>) -> Result<(), DropReason> {
    let headers = &packet.headers;
    if !matches!(headers.network, Network::V4 | Network::V6) || !headers.has_upper_header() {
        return Ok(());
    }
    let key = FrontendKey {
        address: headers.destination,
        protocol: headers.protocol.0,
        port: headers.ports.1,
    };
    let tables = context.tables;
    let frontend = match packet.handed {
        true => tables.direct_frontend(&key),
        false => tables.frontend(&key),
    };
    let Some(frontend) = frontend.filter(|_| has_ports(headers.protocol)) else {
        if packet.outside.is_some() && has_ports(headers.protocol) {
            // The worker that received it knew other services.
            return Err(DropReason::UnderlayUnexpected);
        }
        if let Some(worker) = owner::seek(packet, context) {
            packet.verdict = Verdict::HandOver(worker);
            return Ok(());
        }
        return tell_apart(packet, context);
    };
    if !frontend.admits(headers.source) {
        return Err(DropReason::SourceRange);
    }
    let backend = match packet.handed {
        true => direct::backend_here(frontend, packet.track.hash, context),
        false => backend(packet, frontend, context),
    };
    let Some(backend) = backend else {
        return Err(refuse(packet, frontend, context));
    };
    if direct::hand_on(packet, frontend, &backend, context) {
        return Ok(());
    }
    let headers = &packet.headers;
    let (source, port) = source::of(packet, frontend, &backend, context)?;
    let ports = (port, backend.port);
    let Some(there) = Tuple::new(source, backend.address, ports) else {
        return Ok(());
    };
    debug_assert_ne!(headers.network, Network::Arp, "it has ports");
    translate(packet, there, context)?;
    if let Some(translation) = &mut packet.translation {
        translation.chosen = Some((frontend.service, backend.id));
    }
    Ok(())
}

/// Gives a new connection past the service another source port where its client speaks with that backend from that port
/// already, by way of the service: the backend's packets of both would be the same.
fn tell_apart(packet: &mut Packet, context: &mut Context<'_>) -> Result<(), DropReason> {
    let headers = &packet.headers;
    if !has_ports(headers.protocol) || (headers.protocol == Protocol::TCP && !opens(headers)) {
        return Ok(());
    }
    let Some(tuple) = Tuple::new(headers.source, headers.destination, headers.ports) else {
        return Ok(());
    };
    let protocol = headers.protocol.0;
    if !context.flows.is_of_translated(tuple.mirrored(), protocol) {
        return Ok(());
    }
    let (source, destination) = (headers.source, headers.destination);
    let there = (destination, headers.ports.1);
    let (_, port) = source::free_port(packet, source, source::PORTS, there, context)?;
    match Tuple::new(source, destination, (port, there.1)) {
        Some(there) => translate(packet, there, context),
        None => Ok(()),
    }
}

/// Gives a new connection another source port than the one it was to have.
#[cold]
pub(super) fn another_port(
    packet: &mut Packet,
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    let headers = &packet.headers;
    let (source, destination) = (headers.source, headers.destination);
    let there = (destination, headers.ports.1);
    let ports = if source == packet.client() {
        source::PORTS
    } else {
        source::ports_of(context.worker, context.workers)
    };
    let (_, port) = source::free_port(packet, source, ports, there, context)?;
    match Tuple::new(source, destination, (port, there.1)) {
        Some(there) => translate(packet, there, context),
        None => Err(DropReason::SourcePorts),
    }
}

/// The client's last backend, where the service wants that, or one for the connection.
fn backend(packet: &Packet, frontend: &Frontend, context: &mut Context<'_>) -> Option<Backend> {
    let headers = &packet.headers;
    let client = headers.source;
    let place = client_place(packet, context);
    let now_ns = context.now_ns;
    let last = frontend.affinity_seconds.and_then(|_| {
        let address = context.affinity.backend(frontend.service, client, now_ns)?;
        frontend.at(place, address)
    });
    let load = |id| context.flows.backends().of(id).0 as u32;
    let chosen = match last {
        Some(backend) => backend,
        None => frontend.choose(place, chance(packet, frontend, now_ns)?, load)?,
    };
    if let Some(seconds) = frontend.affinity_seconds {
        let key = (frontend.service, client);
        context
            .affinity
            .remember(key, chosen.address, seconds, now_ns);
    }
    Some(chosen)
}

fn client_place(packet: &Packet, context: &Context<'_>) -> Client {
    match packet.rx_kind {
        PortKind::Pod => Client::Inside,
        PortKind::Node if context.node.owns(packet.headers.source) => Client::Inside,
        PortKind::Node | PortKind::Uplink => Client::Outside,
    }
}

/// With affinity a client's connections are one to the choice, so that it survives a lost table.
fn chance(packet: &Packet, frontend: &Frontend, now_ns: u64) -> Option<Chance> {
    let headers = &packet.headers;
    let (ports, protocol) = match frontend.affinity_seconds {
        Some(_) => ((0, 0), 0),
        None => (headers.ports, headers.protocol.0),
    };
    let tuple = Tuple::new(headers.source, headers.destination, ports)?;
    let hash = FlowKey { tuple, protocol }.hash(CHOICE);
    // Nobody outside knows the seed of the packet's hash.
    let mixed = (packet.track.hash ^ now_ns).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let random = mixed ^ mixed >> 32 ^ mixed << 32;
    Some(Chance { hash, random })
}

/// Says why nobody answers, and to the client as well.
#[cold]
#[inline(never)]
fn refuse(packet: &mut Packet, frontend: &Frontend, context: &mut Context<'_>) -> DropReason {
    if frontend.drops {
        return DropReason::NoLocalBackend;
    }
    if packet.headers.protocol == Protocol::TCP {
        reset::refuse(packet, context);
    } else {
        icmp::answer(packet, IcmpError::NoPort, context);
    }
    DropReason::NoBackend
}

/// Whether the backend of a connection is gone from its service. A connection outlives its service, but datagrams
/// have nobody who would tell that they arrive nowhere. A backend that is there is counted as the connection's, which
/// nobody may know after a restart.
#[inline(never)]
fn is_gone(flow: FlowRef, context: &mut Context<'_>) -> bool {
    let tuples = [Direction::Original, Direction::Reply].map(|it| context.flows.arriving(flow, it));
    let (Some(original), Some(reply), Some(key)) =
        (tuples[0], tuples[1], context.flows.opening(flow))
    else {
        return false;
    };
    if (original.destination(), original.ports().1) == (reply.source(), reply.ports().0) {
        // Its source alone is translated.
        return false;
    }
    let at = FrontendKey {
        address: original.destination(),
        protocol: key.protocol,
        port: original.ports().1,
    };
    let tables = context.tables;
    let frontend = tables.frontend(&at).or_else(|| tables.direct_frontend(&at));
    let Some(frontend) = frontend else {
        return Protocol(key.protocol) != Protocol::TCP;
    };
    match frontend.known(reply.source(), reply.ports().0) {
        Some(backend) => {
            context.flows.set_backend(flow, backend.id);
            false
        }
        None => true,
    }
}

/// Ends a connection whose backend is gone. What can begin another one does.
#[cold]
#[inline(never)]
fn end(
    packet: &mut Packet,
    flow: FlowRef,
    direction: Direction,
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    let headers = &packet.headers;
    let opens = opens(headers) || headers.protocol == Protocol::UDP;
    if opens && direction == Direction::Original {
        context.flows.remove(flow);
        return begin_anew(packet, context);
    }
    if let Some(there) = context.flows.translation(flow, direction) {
        translate(packet, there, context)?;
        reset::both_ends(packet, context);
    }
    context.flows.remove(flow);
    Err(DropReason::BackendGone)
}

fn opens(headers: &Headers) -> bool {
    headers.tcp_flags.intersects(TcpFlags::SYN) && !headers.tcp_flags.intersects(TcpFlags::ACK)
}

/// Takes a packet for one of no known connection.
fn begin_anew(packet: &mut Packet, context: &mut Context<'_>) -> Result<(), DropReason> {
    packet.track.flow = None;
    packet.track.translated = false;
    choose(packet, context)
}
