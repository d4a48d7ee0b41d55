//! What:   where the packet goes, and whether it may: FIB, TTL, size.
//! Reads:  FIB, ports, remote nodes, `headers`, `track`, `direct`, the way decided before for the connection.
//! Writes: `egress`, `cut_to`; the way into the connection's entry. Asks for shortcuts.
//! Drops:  unclaimed cluster addresses, loops, expired TTLs, packets larger than the path; answered with
//!         ICMP where the sender can do something about it.
//! Order:  behind policy and fragment, so that the forbidden get no answer; in front of rewrite, so that an
//!         ICMP error quotes the packet as it came.

use std::net::IpAddr;

use weft_wire::Ipv4Header;
use weft_wire::answer::IcmpError;

use crate::counters::Stage;
use crate::drop_reason::DropReason;
use crate::icmp;
use crate::outside;
use crate::packet::{Egress, Network, Origin, Packet, PortId, PortKind, RemoteId, Track};
use crate::pipeline::Context;
use crate::stage::encap;
use crate::table::fib::Route;
use crate::table::flow::{Direction, ShortcutRoute, TunnelEnd};

/// Offset of the TTL in an IPv4 header (RFC 791 section 3.1).
const TTL_AT: usize = 8;

/// Offset of the hop limit in an IPv6 header (RFC 8200 section 3).
const HOP_LIMIT_AT: usize = 7;

pub(crate) fn process(packets: &mut [Packet], context: &mut Context<'_>) {
    let shortcuts = context.tables.shortcut_epoch();
    super::each(Stage::Route, packets, context, |packet, context| {
        let mtu = match decided(packet, context) {
            Some(mtu) => {
                if shortcuts != 0 {
                    consider_shortcut(packet, shortcuts, context);
                }
                mtu
            }
            None => decide(packet, context)?,
        };
        check_hops(packet, context)?;
        if packet.headers.ip_len() > mtu as usize {
            too_big(packet, mtu, context)
        } else {
            Ok(())
        }
    });
}

/// Takes the way out that was decided for the connection under these tables, and returns the largest IP
/// packet on it. Errors about a connection's packets go their own way: to whoever they are addressed to.
#[inline]
fn decided(packet: &mut Packet, context: &Context<'_>) -> Option<u32> {
    let Track {
        flow: Some(flow),
        direction,
        related: false,
        decided,
        ..
    } = packet.track
    else {
        return None;
    };
    let epoch = epoch(context);
    let decision = if decided.epoch == epoch && decided.decision != 0 {
        decided.decision
    } else {
        // Another packet of this batch may have asked since conntrack looked.
        context.flows.decision(flow, direction, epoch)
    };
    let egress = Egress::decode(decision, packet.rx_kind)?;
    // The ports and nodes of a decision are in the tables it was made under.
    let mtu = match egress {
        Egress::Local(id) | Egress::Host { port: id, .. } => context.tables.port(id)?.mtu,
        Egress::Remote(id) => context.tables.remote(id)?.inner_mtu,
        Egress::Unknown | Egress::Outside(_) => return None,
    };
    packet.egress = egress;
    Some(mtu)
}

/// Asks for a shortcut of a connection that had some packets by here. It came this far, so it is allowed.
#[inline]
fn consider_shortcut(packet: &Packet, shortcuts: u32, context: &mut Context<'_>) {
    if let Some(flow) = packet.track.flow
        && let Some(ways) = context.flows.is_due(flow, epoch(context))
        && let Some(route) = shortcut_route(packet, ways, context)
    {
        context.flows.shorten(flow, route, shortcuts);
    }
}

/// Where a connection's packets come and go: a port of this node, and the node behind it if it is an uplink.
#[derive(Clone, Copy, PartialEq, Eq)]
struct End {
    port: PortId,
    kind: PortKind,
    remote: Option<RemoteId>,
}

/// Where a shortcut of the packet's connection leads, whose ways out are `ways`: from a pod to another port of the
/// node or to another node, or back. None when a port can have none.
#[cold]
fn shortcut_route(packet: &Packet, ways: [u32; 2], context: &Context<'_>) -> Option<ShortcutRoute> {
    let from = End {
        port: packet.rx,
        kind: packet.rx_kind,
        remote: packet.tunnel,
    };
    let to = end(packet.egress, context)?;
    let ends = [from, to];
    let can_have = |end: &End| {
        let port = context.tables.port(end.port);
        // What the tunnel's programs know is VXLAN over IPv4.
        let remote = end.remote.and_then(|id| context.tables.remote(id));
        port.is_some_and(|port| port.shortcuts)
            && (end.kind == PortKind::Uplink) == remote.is_some_and(|it| it.vtep.is_ipv4())
    };
    if from.port == to.port || !ends.iter().all(can_have) {
        return None;
    }
    let remote = from.remote.or(to.remote);
    if remote.is_some() && ends.iter().all(|end| end.kind != PortKind::Pod) {
        return None;
    }
    let direction = packet.track.direction;
    let back = Egress::decode(ways[direction.opposite().index()], to.kind);
    let both = match back.and_then(|back| end(back, context)) {
        Some(end) if end == from => true,
        Some(_) => return None,
        None => false,
    };
    let (ports, directions) = match direction {
        Direction::Original => ([from.port, to.port], [true, both]),
        Direction::Reply => ([to.port, from.port], [both, true]),
    };
    let tunnel = |remote| TunnelEnd {
        remote,
        flow_hash: encap::entropy(packet, context),
    };
    Some(ShortcutRoute {
        ports,
        directions,
        tunnel: remote.map(tunnel),
    })
}

fn end(egress: Egress, context: &Context<'_>) -> Option<End> {
    let (port, kind, remote) = match egress {
        Egress::Local(port) => (port, PortKind::Pod, None),
        Egress::Host { port, .. } => (port, PortKind::Node, None),
        Egress::Remote(id) => {
            let path = context.tables.remote(id)?.path?;
            (path.uplink, PortKind::Uplink, Some(id))
        }
        Egress::Unknown | Egress::Outside(_) => return None,
    };
    Some(End { port, kind, remote })
}

/// An entry has room for half of it; four thousand million versions make no mistake likely, and a
/// connection that old was looked at in between.
#[inline]
fn epoch(context: &Context<'_>) -> u32 {
    context.tables.epoch() as u32
}

/// Decides anew, and remembers it.
#[inline(never)]
fn decide(packet: &mut Packet, context: &mut Context<'_>) -> Result<u32, DropReason> {
    let mtu = look_up(packet, context)?;
    let Track {
        flow,
        direction,
        related,
        ..
    } = packet.track;
    if let Some(flow) = flow.filter(|_| !related) {
        let decision = packet.egress.encode(packet.rx_kind);
        let epoch = epoch(context);
        context.flows.decide(flow, direction, epoch, decision);
    }
    Ok(mtu)
}

/// Sets the way out where the destination does not say it: towards a client outside, or with one's packet to the node that
/// translates it. Returns the largest IP packet on it.
#[inline]
fn known(packet: &mut Packet, context: &Context<'_>) -> Result<Option<u32>, DropReason> {
    if let Some(direct) = packet.direct {
        let remote = context.tables.remote(direct.remote);
        packet.egress = Egress::Remote(direct.remote);
        return Ok(Some(remote.ok_or(DropReason::NoNeighbour)?.inner_mtu));
    }
    let Some(next_hop) = outside::next_hop(packet, context) else {
        return Ok(None);
    };
    let port = context.tables.port(next_hop.port);
    let port = port.filter(|port| port.kind == PortKind::Uplink);
    let port = port.ok_or(DropReason::PortGone)?;
    packet.egress = Egress::Outside(next_hop);
    Ok(Some(port.mtu.min(context.node.outside_mtu)))
}

/// Sets the way out and returns the largest IP packet on it.
#[inline]
fn look_up(packet: &mut Packet, context: &mut Context<'_>) -> Result<u32, DropReason> {
    if let Some(mtu) = known(packet, context)? {
        return Ok(mtu);
    }
    let destination = packet.headers.destination;
    if let IpAddr::V6(address) = destination
        && address.is_unicast_link_local()
    {
        // RFC 4291 section 2.5.6.
        return Err(DropReason::LinkLocal);
    }
    // What the pipeline built itself may go anywhere: back to another node, or to the stack.
    let received = packet.origin == Origin::Received;
    let from = packet.rx_kind;
    // A service's connection may come in here and go on to another node, and its replies back; errors about it too.
    let Track {
        related,
        translated: of_service,
        ..
    } = packet.track;
    let translated = packet.translation.is_some() || related && of_service;
    if received && packet.outside.is_some() && !translated {
        return Err(DropReason::UnderlayUnexpected);
    }
    match context.tables.fib().lookup(destination) {
        Route::Local(id) => {
            let port = context.tables.port(id).ok_or(DropReason::PortGone)?;
            packet.egress = Egress::Local(id);
            Ok(port.mtu)
        }
        Route::Remote(_) if received && from == PortKind::Uplink && !translated => {
            Err(DropReason::Transit)
        }
        Route::Remote(id) => {
            let remote = context.tables.remote(id).ok_or(DropReason::NoNeighbour)?;
            packet.egress = Egress::Remote(id);
            Ok(remote.inner_mtu)
        }
        Route::Host => {
            let own = context.node.owns(destination);
            if received && from == PortKind::Node && !(own && translated) {
                return Err(DropReason::HostLoop);
            }
            if received && from == PortKind::Uplink && !own && !translated {
                return Err(DropReason::Transit);
            }
            let id = context.node.node_port.ok_or(DropReason::PortGone)?;
            let port = context.tables.port(id).ok_or(DropReason::PortGone)?;
            packet.egress = Egress::Host { port: id, own };
            Ok(if own || !packet.is_gso_candidate() {
                port.mtu
            } else {
                context.node.outside_mtu
            })
        }
        Route::NoEndpoint => {
            icmp::answer(packet, IcmpError::NoAddress, context);
            Err(DropReason::NoEndpoint)
        }
        Route::NoService => {
            icmp::answer(packet, IcmpError::NoAddress, context);
            Err(DropReason::NoService)
        }
    }
}

/// Whether this node takes one off the TTL here. Not off packets of or for the node's own stack: that
/// counts itself when it forwards, and a node is one hop, not two.
#[inline]
pub(super) fn counts_as_hop(packet: &Packet) -> bool {
    packet.origin == Origin::Received
        && packet.rx_kind != PortKind::Node
        && !matches!(packet.egress, Egress::Host { .. })
}

#[inline]
fn check_hops(packet: &mut Packet, context: &mut Context<'_>) -> Result<(), DropReason> {
    if !counts_as_hop(packet) {
        return Ok(());
    }
    let first = packet.frames.first().ok_or(DropReason::Truncated)?;
    let at = match packet.headers.network {
        Network::V4 => TTL_AT,
        _ => HOP_LIMIT_AT,
    };
    let hops = context
        .umem
        .bytes(first)
        .get(usize::from(packet.headers.l3) + at);
    match hops {
        Some(2..) => Ok(()),
        Some(_) => {
            icmp::answer(packet, IcmpError::TimeExceeded, context);
            Err(DropReason::TtlExpired)
        }
        None => Err(DropReason::Truncated),
    }
}

/// A GSO packet is segmented, as its sender's own device would do; IPv4 that allows it is cut into fragments at
/// the end of the path; all else is for the sender to shrink.
fn too_big(packet: &mut Packet, mtu: u32, context: &mut Context<'_>) -> Result<(), DropReason> {
    if packet.is_gso_candidate() {
        packet.cut_to = Some(mtu);
        return Ok(());
    }
    refuse_or_fragment(packet, mtu, context)
}

#[cold]
fn refuse_or_fragment(
    packet: &mut Packet,
    mtu: u32,
    context: &mut Context<'_>,
) -> Result<(), DropReason> {
    let first = packet.frames.first().ok_or(DropReason::Truncated)?;
    let bytes = &context.umem.bytes(first)[usize::from(packet.headers.l3)..];
    let may_cut = packet.headers.network == Network::V4
        && Ipv4Header::parse(bytes).is_ok_and(|(ip, _)| !ip.dont_fragment());
    if may_cut {
        packet.cut_to = Some(mtu);
        return Ok(());
    }
    icmp::answer(packet, IcmpError::TooBig { mtu }, context);
    Err(DropReason::TooBig)
}
