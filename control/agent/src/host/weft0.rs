//! The node's own port: the veth pair `weft0` (the stack's end) and `weft0p` (the dataplane's end).
//!
//! `weft0` holds one address per family out of the node's pod prefixes and two permanent neighbours,
//! the gateways, so nothing on it ever needs ARP or neighbour discovery. `weft0p` must be nothing to
//! the stack: no addresses, no IPv6, no forwarding, deaf to ARP. Without an XDP program on it, what
//! `weft0` sends ends there, as the gateway MAC is nobody's.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use weft_api::{
    GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, MacAddr, NODE_PORT, NODE_PORT_PEER, SINGLE_FRAME_MTU,
    VETH_MTU,
};

use super::link::Link;
use super::mtu::local_mtu;
use super::{HostError, Netlink, addresses, neighbour, sysctl};

/// Creates or repairs the pair and gives `weft0` its MAC and its `own` addresses; answers its index.
///
/// # Errors
/// [`HostError::InTheWay`] when `weft0` is not a veth, otherwise what the kernel refused.
pub async fn apply(netlink: &Netlink, mac: MacAddr, own: &[IpAddr]) -> Result<u32, HostError> {
    let (node, peer) = match existing(netlink).await? {
        Some(pair) => pair,
        None => create(netlink, mac).await?,
    };
    sysctl::close_host_end(NODE_PORT_PEER)?;
    sysctl::open_node_port(NODE_PORT)?;
    weft_ethtool::set_features(NODE_PORT, weft_ethtool::PORT_OFFLOADS)?;
    if local_mtu() <= SINGLE_FRAME_MTU {
        weft_ethtool::set_features(NODE_PORT, weft_ethtool::SINGLE_FRAME_OFFLOADS)?;
    }
    repair(netlink, &peer, None).await?;
    repair(netlink, &node, Some(mac)).await?;
    addresses::set_exactly(netlink, node.index, own).await?;
    addresses::set_exactly(netlink, peer.index, &[]).await?;
    for gateway in [IpAddr::V4(GATEWAY_V4), IpAddr::V6(GATEWAY_V6)] {
        if own.iter().any(|a| a.is_ipv4() == gateway.is_ipv4()) {
            neighbour::fix(netlink, node.index, gateway, GATEWAY_MAC).await?;
        }
    }
    Ok(node.index)
}

/// The pair, when both ends are here and belong to each other. A half of one is removed: a veth
/// cannot be given another peer.
async fn existing(netlink: &Netlink) -> Result<Option<(Link, Link)>, HostError> {
    let node = netlink.link(NODE_PORT).await?;
    let peer = netlink.link(NODE_PORT_PEER).await?;
    for link in [&node, &peer].into_iter().flatten() {
        if !link.veth {
            return Err(HostError::InTheWay(format!(
                "an interface called {} exists and is no veth; remove or rename it",
                link.name
            )));
        }
    }
    match (node, peer) {
        (Some(node), Some(peer)) if node.peer == Some(peer.index) && !node.peer_elsewhere => {
            Ok(Some((node, peer)))
        }
        (node, peer) => {
            for link in [node, peer].into_iter().flatten() {
                netlink.delete_link(&link).await?;
            }
            Ok(None)
        }
    }
}

async fn create(netlink: &Netlink, mac: MacAddr) -> Result<(Link, Link), HostError> {
    // One queue at each end: one socket serves the port, and a queue nobody reads would swallow.
    let ends = |attributes: &mut Vec<LinkAttribute>| {
        attributes.push(LinkAttribute::Mtu(VETH_MTU));
        attributes.push(LinkAttribute::NumTxQueues(1));
        attributes.push(LinkAttribute::NumRxQueues(1));
    };
    let mut peer = LinkUnspec::new_with_name(NODE_PORT_PEER).build();
    ends(&mut peer.attributes);
    let mut message = LinkMessageBuilder::<LinkVeth>::new(NODE_PORT, NODE_PORT_PEER)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .address(mac.0.to_vec())
        .build();
    ends(&mut message.attributes);
    let request = RouteNetlinkMessage::NewLink(message);
    let action = || format!("create the interfaces {NODE_PORT} and {NODE_PORT_PEER}");
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    netlink.change(action, request, flags).await?;
    existing(netlink).await?.ok_or_else(|| {
        HostError::InTheWay(format!("{NODE_PORT} vanished while it was being set up"))
    })
}

/// MTU, MAC and state of one end; settings that are right are not sent again.
async fn repair(netlink: &Netlink, link: &Link, mac: Option<MacAddr>) -> Result<(), HostError> {
    let wrong_mac = mac.filter(|mac| link.mac != Some(*mac));
    if link.mtu == VETH_MTU && link.up && wrong_mac.is_none() {
        return Ok(());
    }
    let mut change = LinkUnspec::new_with_index(link.index).mtu(VETH_MTU).up();
    if let Some(mac) = wrong_mac {
        change = change.address(mac.0.to_vec());
    }
    let request = RouteNetlinkMessage::SetLink(change.build());
    let action = || format!("set up interface {}", link.name);
    netlink.change(action, request, 0).await
}
