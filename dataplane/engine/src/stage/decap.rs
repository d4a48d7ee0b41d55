//! What:   takes the tunnel's headers off packets from the underlay; hears ICMP errors about our own; lets clients
//!         outside the cluster in that speak to a service.
//! Reads:  node (addresses, VNI, tunnel MACs), known tunnel endpoints, services, outer headers.
//! Writes: frames (shortened), `headers` (inner), `tunnel`, the inner ECN bits (RFC 6040); `outside`, and then
//!         `checksum`.
//! Drops:  what is neither for a service nor our cluster's VXLAN to us, from a node we know, intact.
//! Order:  behind parse, since the outer headers must be known; in front of all that looks at addresses.

use weft_wire::{
    Ecn, EthernetHeader, Ipv4Header, Ipv6Header, Protocol, UdpHeader, VxlanHeader, checksum,
};

use super::parse;
use crate::chain;
use crate::counters::Stage;
use crate::drop_reason::DropReason;
use crate::outside;
use crate::packet::{Network, Packet, PortKind};
use crate::pipeline::Context;

pub(crate) fn process(packets: &mut [Packet], context: &mut Context<'_>) {
    // A batch comes from one port, or from ports of one kind.
    if packets
        .iter()
        .all(|packet| packet.rx_kind != PortKind::Uplink)
    {
        return;
    }
    super::each(
        Stage::Decap,
        packets,
        context,
        |packet, context| match packet.rx_kind {
            PortKind::Uplink => decap(packet, context),
            PortKind::Pod | PortKind::Node => Ok(()),
        },
    );
}

#[inline]
fn decap(packet: &mut Packet, context: &mut Context<'_>) -> Result<(), DropReason> {
    let outer = &packet.headers;
    let is_tunnel = outer.protocol == Protocol::UDP
        && outer.ports.1 == context.node.vxlan_port
        && context.node.addresses.contains(&outer.destination);
    if !is_tunnel {
        return outside::receive(packet, context);
    }
    if outer.fragment.is_some() {
        return Err(DropReason::OuterFragment);
    }
    let remote = context
        .tables
        .remote_by_address(outer.source)
        .ok_or(DropReason::VtepUnknown)?;
    let ecn = check_outer(packet, context)?;
    let inner_at = usize::from(outer.l4) + UdpHeader::LEN + VxlanHeader::LEN;
    check_inner_mac(packet, inner_at, context)?;
    let first = packet.frames.first_mut().ok_or(DropReason::Truncated)?;
    first
        .shrink_front(inner_at)
        .map_err(|_| DropReason::VxlanMalformed)?;
    parse::headers(packet, context.umem, context.pool)?;
    merge_ecn(packet, ecn, context)?;
    packet.tunnel = Some(remote);
    Ok(())
}

/// Checks the outer UDP and VXLAN headers and returns the outer ECN bits.
#[inline]
fn check_outer(packet: &Packet, context: &Context<'_>) -> Result<Ecn, DropReason> {
    let outer = &packet.headers;
    let first = packet.frames.first().ok_or(DropReason::Truncated)?;
    let bytes = context.umem.bytes(first);
    let (l3, l4) = (usize::from(outer.l3), usize::from(outer.l4));
    let (udp, len) = UdpHeader::parse(&bytes[l4..]).map_err(|_| DropReason::TransportMalformed)?;
    let (tunnel, _) =
        VxlanHeader::parse(&bytes[l4 + len..]).map_err(|_| DropReason::VxlanMalformed)?;
    if tunnel.vni() != context.node.vni {
        return Err(DropReason::VniForeign);
    }
    let intact = match (udp.checksum(), outer.network) {
        (0, Network::V4) => true,
        // RFC 8200 section 8.1; our own tunnel packets carry one.
        (0, _) => false,
        _ if usize::from(udp.total_len()) != outer.l4_len() => false,
        // Left to a device by a sender on the same machine: the packet was on no wire.
        (field, _) if field == checksum::fold(parse::pseudo_sum(outer)) => true,
        _ => {
            let seed = parse::pseudo_sum(outer);
            checksum::is_valid(chain::sum(
                context.umem,
                &packet.frames,
                l4,
                outer.end as usize,
                seed,
            ))
        }
    };
    if !intact {
        return Err(DropReason::OuterChecksum);
    }
    ecn(&bytes[l3..], outer.network).ok_or(DropReason::Truncated)
}

#[inline]
fn check_inner_mac(packet: &Packet, at: usize, context: &Context<'_>) -> Result<(), DropReason> {
    let first = packet.frames.first().ok_or(DropReason::VxlanMalformed)?;
    let inner = context
        .umem
        .bytes(first)
        .get(at..)
        .ok_or(DropReason::VxlanMalformed)?;
    let (inner, _) = EthernetHeader::parse(inner).map_err(|_| DropReason::VxlanMalformed)?;
    if Some(inner.destination()) == context.node.vtep_mac(packet.headers.destination) {
        Ok(())
    } else {
        Err(DropReason::InnerMac)
    }
}

/// RFC 6040 section 4.2.
#[inline]
fn merge_ecn(packet: &mut Packet, outer: Ecn, context: &Context<'_>) -> Result<(), DropReason> {
    let (l3, network) = (usize::from(packet.headers.l3), packet.headers.network);
    let first = packet.frames.first_mut().ok_or(DropReason::Truncated)?;
    let bytes = &mut context.umem.bytes_mut(first)[l3..];
    // ARP rides no tunnel.
    let inner = ecn(bytes, network).ok_or(DropReason::EtherType)?;
    let merged = inner.on_decap(outer).ok_or(DropReason::EcnIllegal)?;
    if merged == inner {
        return Ok(());
    }
    match network {
        Network::V4 => Ipv4Header::parse_mut(bytes).map(|(ip, _)| ip.rewrite_ecn(merged)),
        _ => Ipv6Header::parse_mut(bytes).map(|(ip, _)| ip.rewrite_ecn(merged)),
    }
    .map_err(|_| DropReason::Truncated)
}

#[inline(always)]
fn ecn(packet: &[u8], network: Network) -> Option<Ecn> {
    match network {
        // Parse looked at the headers.
        Network::V4 => Some(Ipv4Header::of(packet.first_chunk()?).ecn()),
        Network::V6 => Some(Ipv6Header::of(packet.first_chunk()?).ecn()),
        Network::None | Network::Arp => None,
    }
}
