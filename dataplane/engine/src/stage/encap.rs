//! What:   puts the tunnel's headers in front of packets to other nodes.
//! Reads:  `egress`, remote nodes and the underlay's way to them, node, `headers`.
//! Writes: frames (lengthened), `outer_len`, `uplink`.
//! Drops:  packets to nodes the underlay knows no way to.
//! Order:  behind rewrite, whose frame becomes the payload; in front of offload, which repeats these headers
//!         before every piece it cuts.

use weft_wire::{EthernetHeader, Ipv4Header, Ipv6Header};

use crate::counters::Stage;
use crate::drop_reason::DropReason;
use crate::encap::vxlan::{self, Outer};
use crate::packet::{Egress, Network, Packet, RemoteId};
use crate::pipeline::Context;
use crate::stage::conntrack;

pub(crate) fn process(packets: &mut [Packet], context: &mut Context<'_>) {
    super::each(
        Stage::Encap,
        packets,
        context,
        |packet, context| match packet.egress {
            Egress::Remote(remote) => encap(packet, remote, context),
            _ => Ok(()),
        },
    );
}

#[inline]
fn encap(packet: &mut Packet, id: RemoteId, context: &mut Context<'_>) -> Result<(), DropReason> {
    let remote = context.tables.remote(id).ok_or(DropReason::NoNeighbour)?;
    let path = remote.path.as_ref().ok_or(DropReason::NoNeighbour)?;
    *context.ip_id = context.ip_id.wrapping_add(1);
    let front = vxlan::front_len(remote.vtep);
    let outer = Outer {
        macs: (path.source_mac, path.next_hop_mac),
        addresses: (path.source, remote.vtep),
        vni: context.node.vni,
        port: context.node.vxlan_port,
        flow_hash: entropy(packet, context),
        class: class(packet, context),
        identification: *context.ip_id,
        inner_len: match packet.cut_to {
            // Corrected for each piece when it is cut; before, the packet may be too long for the outer header.
            Some(mtu) => EthernetHeader::LEN + mtu as usize,
            None => packet.headers.end as usize,
        },
    };
    let first = packet.frames.first_mut().ok_or(DropReason::Truncated)?;
    first
        .grow_front(front)
        .map_err(|_| DropReason::NoHeadroom)?;
    packet.outer_len = front as u8;
    packet.uplink = path.uplink;
    packet.tunnel_flow = tunnel_flow(id, &outer);
    if outer.write(context.umem.bytes_mut(first)) {
        Ok(())
    } else {
        Err(DropReason::NoNeighbour)
    }
}

/// What the outer headers are made of: the remote node, the source port or flow label, the traffic class.
#[inline]
fn tunnel_flow(remote: RemoteId, outer: &Outer) -> u64 {
    1 << 63 | u64::from(remote.0) << 40 | u64::from(outer.flow_hash) << 8 | u64::from(outer.class)
}

/// TOS or traffic class of the inner packet: DSCP (RFC 2983, uniform) and ECN (RFC 6040 section 4.1) are
/// copied.
#[inline]
fn class(packet: &Packet, context: &Context<'_>) -> u8 {
    let l3 = usize::from(packet.headers.l3);
    let bytes = packet
        .frames
        .first()
        .map_or(&[][..], |first| &context.umem.bytes(first)[l3..]);
    // Parse looked at the headers.
    match packet.headers.network {
        Network::V4 => bytes.first_chunk().map_or(0, |ip| Ipv4Header::of(ip).tos()),
        _ => bytes
            .first_chunk()
            .map_or(0, |ip| Ipv6Header::of(ip).traffic_class()),
    }
}

/// One number per inner flow, so that the underlay spreads flows and keeps each in order.
#[inline]
pub(super) fn entropy(packet: &Packet, context: &Context<'_>) -> u32 {
    let hash = match packet.track.hash {
        0 => conntrack::flow_hash(&packet.headers, context.flows.seed()),
        hash => hash,
    };
    (hash ^ (hash >> 32)) as u32
}
