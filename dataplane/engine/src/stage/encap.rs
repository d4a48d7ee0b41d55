//! What:   puts the tunnel's headers in front of packets to other nodes.
//! Reads:  `egress`, remote nodes and the underlay's way to them, node, `headers`.
//! Writes: frames (lengthened), `outer_len`, `uplink`.
//! Drops:  packets to nodes the underlay knows no way to.
//! Order:  behind rewrite, whose frame becomes the payload; in front of offload, which repeats these headers
//!         before every piece it cuts.

use std::net::IpAddr;

use weft_wire::{EthernetHeader, Ipv4Header, Ipv6Header};

use crate::counters::Stage;
use crate::drop_reason::DropReason;
use crate::encap::vxlan::{self, Outer};
use crate::packet::{Egress, Headers, Network, Packet, RemoteId};
use crate::pipeline::Context;

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
    let path = remote.path.ok_or(DropReason::NoNeighbour)?;
    *context.ip_id = context.ip_id.wrapping_add(1);
    let front = vxlan::front_len(remote.vtep);
    let outer = Outer {
        macs: (path.source_mac, path.next_hop_mac),
        addresses: (path.source, remote.vtep),
        vni: context.node.vni,
        port: context.node.vxlan_port,
        flow_hash: flow_hash(&packet.headers, context.hash_seed),
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
    match packet.headers.network {
        Network::V4 => Ipv4Header::parse(bytes).map_or(0, |(ip, _)| ip.tos()),
        _ => Ipv6Header::parse(bytes).map_or(0, |(ip, _)| ip.traffic_class()),
    }
}

/// One number per inner flow, so that the underlay spreads flows and keeps each in order. All fragments of
/// a datagram count as one flow without ports: later ones have none.
#[inline]
fn flow_hash(headers: &Headers, seed: u64) -> u32 {
    let (low, high) = match (headers.source, headers.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => (
            u64::from(source.to_bits()),
            u64::from(destination.to_bits()),
        ),
        (IpAddr::V6(source), IpAddr::V6(destination)) => (
            fold(source.to_bits(), seed),
            fold(destination.to_bits(), !seed),
        ),
        _ => (0, 0),
    };
    let (ports, protocol) = match headers.fragment {
        Some(_) => ((0, 0), 0),
        None => (headers.ports, headers.protocol.0),
    };
    let upper = u64::from(ports.0) << 32 | u64::from(ports.1) << 16 | u64::from(protocol);
    let hash = mix(mix(low ^ seed, high ^ MULTIPLE) ^ upper, MULTIPLE);
    (hash ^ (hash >> 32)) as u32
}

/// An odd constant with its bits spread evenly: 2^64 divided by the golden ratio.
const MULTIPLE: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline]
const fn mix(a: u64, b: u64) -> u64 {
    let product = (a as u128).wrapping_mul(b as u128);
    product as u64 ^ (product >> 64) as u64
}

#[inline]
const fn fold(address: u128, seed: u64) -> u64 {
    mix(address as u64 ^ seed, (address >> 64) as u64 ^ MULTIPLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use weft_wire::{Fragment, Protocol};

    fn headers(source: &str, destination: &str, ports: (u16, u16)) -> Headers {
        Headers {
            protocol: Protocol::TCP,
            ports,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            ..Headers::default()
        }
    }

    #[test]
    fn flows_spread_over_the_source_ports_and_fragments_of_one_do_not() {
        for (source, destination) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let port_of = |h: &Headers| weft_wire::vxlan::source_port(flow_hash(h, 7));
            let ports: HashSet<u16> = (0..1000)
                .map(|p| port_of(&headers(source, destination, (40_000 + p, 80))))
                .collect();
            assert!(ports.len() > 900, "{}", ports.len());
            let first = Fragment {
                offset: 0,
                more: true,
                identification: 1,
            };
            let later = Fragment {
                offset: 1480,
                more: false,
                identification: 1,
            };
            let first = Headers {
                fragment: Some(first),
                ..headers(source, destination, (5, 6))
            };
            let later = Headers {
                fragment: Some(later),
                ..headers(source, destination, (0, 0))
            };
            assert_eq!(port_of(&first), port_of(&later));
        }
    }
}
