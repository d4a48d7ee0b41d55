//! The node's routes to the cluster's pods and services: all of them by way of `weft0`.
//!
//! They carry [`RT_PROTOCOL`], so that stale ones are known after a restart, and the pods' path MTU,
//! so that what the node sends to a remote pod fits the tunnel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use weft_api::{GATEWAY_V4, GATEWAY_V6, NODE_PORT};

use super::{HostError, HostSpec, Netlink, RT_PROTOCOL};

/// What one of our routes says beside its prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Way {
    index: u32,
    gateway: Option<IpAddr>,
    source: Option<IpAddr>,
    mtu: Option<u32>,
}

/// Adds, corrects and removes routes until exactly the ranges of `spec` are routed by `index`
/// (`weft0`). Families `weft0` has no address of are left out. A foreign route to the same prefix
/// is never replaced: it is reported, as two programs routing one range is for people to settle.
pub async fn apply(netlink: &Netlink, index: u32, spec: &HostSpec) -> Vec<Result<(), HostError>> {
    let wanted = wanted(index, spec);
    let mut present = match ours(netlink).await {
        Ok(present) => present,
        Err(error) => return vec![Err(error)],
    };
    let mut results = Vec::new();
    for (prefix, way) in &wanted {
        let flags = match present.remove(prefix) {
            Some((found, _)) if found == *way => continue,
            Some(_) => NLM_F_REPLACE,
            None => NLM_F_EXCL,
        };
        results.push(add(netlink, prefix, way, NLM_F_CREATE | flags).await);
    }
    for (prefix, (_, message)) in present {
        results.push(delete(netlink, prefix, message).await);
    }
    results
}

fn wanted(index: u32, spec: &HostSpec) -> BTreeMap<IpNet, Way> {
    let mut wanted = BTreeMap::new();
    // A service that the node itself answers is asked in the gateway's name: a packet that leaves by weft0 and
    // comes back must not have the node's own source.
    let gateways = match spec.service_ranges.is_empty() {
        true => Vec::new(),
        false => vec![IpAddr::V4(GATEWAY_V4).into(), IpAddr::V6(GATEWAY_V6).into()],
    };
    let ranges = spec.pod_ranges.iter().chain(&spec.service_ranges);
    for range in ranges.chain(&gateways) {
        let range = range.trunc();
        let same_family = |a: &&IpAddr| a.is_ipv4() == range.addr().is_ipv4();
        let Some(source) = spec.addresses.iter().find(same_family) else {
            continue;
        };
        let gateway = match range {
            IpNet::V4(_) => IpAddr::V4(GATEWAY_V4),
            IpNet::V6(_) => IpAddr::V6(GATEWAY_V6),
        };
        let way = Way {
            index,
            gateway: Some(gateway),
            source: Some(*source),
            mtu: Some(spec.path_mtu),
        };
        wanted.insert(range, way);
    }
    wanted
}

/// Routes of the main table that carry our protocol number.
async fn ours(netlink: &Netlink) -> Result<BTreeMap<IpNet, (Way, RouteMessage)>, HostError> {
    let mut ours = BTreeMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        let request = RouteNetlinkMessage::GetRoute(message);
        for answer in netlink.dump("routes", request).await? {
            let RouteNetlinkMessage::NewRoute(route) = answer else {
                continue;
            };
            let header = &route.header;
            if header.protocol == RouteProtocol::Other(RT_PROTOCOL)
                && header.table == RouteHeader::RT_TABLE_MAIN
                && let Some((prefix, way)) = read(&route)
            {
                ours.insert(prefix, (way, route));
            }
        }
    }
    Ok(ours)
}

fn read(route: &RouteMessage) -> Option<(IpNet, Way)> {
    let mut destination = match route.header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        _ => IpAddr::from([0; 16]),
    };
    let mut way = Way {
        index: 0,
        gateway: None,
        source: None,
        mtu: None,
    };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = as_ip(address)?,
            RouteAttribute::Oif(index) => way.index = *index,
            RouteAttribute::Gateway(address) => way.gateway = as_ip(address),
            RouteAttribute::PrefSource(address) => way.source = as_ip(address),
            RouteAttribute::Metrics(metrics) => way.mtu = mtu_of(metrics),
            _ => {}
        }
    }
    let prefix = IpNet::new(destination, route.header.destination_prefix_length).ok()?;
    Some((prefix, way))
}

/// The MTU among a route's metrics, in bytes.
pub(super) fn mtu_of(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
        _ => None,
    })
}

/// An address of a route, if it is one of IP.
pub(super) fn as_ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

async fn add(netlink: &Netlink, prefix: &IpNet, way: &Way, flags: u16) -> Result<(), HostError> {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: match prefix {
            IpNet::V4(_) => AddressFamily::Inet,
            IpNet::V6(_) => AddressFamily::Inet6,
        },
        destination_prefix_length: prefix.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Other(RT_PROTOCOL),
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        // The gateway is on no prefix of weft0's.
        flags: RouteFlags::Onlink,
        ..RouteHeader::default()
    };
    message.attributes = vec![
        RouteAttribute::Destination(prefix.addr().into()),
        RouteAttribute::Oif(way.index),
    ];
    let (gateway, source) = (way.gateway, way.source);
    let gateway = gateway.map(|a| RouteAttribute::Gateway(a.into()));
    let source = source.map(|a| RouteAttribute::PrefSource(a.into()));
    let mtu = way
        .mtu
        .map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    message
        .attributes
        .extend([gateway, source, mtu].into_iter().flatten());
    let request = RouteNetlinkMessage::NewRoute(message);
    let action = || format!("route {prefix} by {NODE_PORT}");
    match netlink.change(action, request, flags).await {
        Err(error) if error.is_errno(nix::libc::EEXIST) => Err(HostError::InTheWay(format!(
            "a route to {prefix} that is not weft's exists; remove it, or take the range out of the \
             cluster (ip route show {prefix})"
        ))),
        result => result,
    }
}

async fn delete(netlink: &Netlink, prefix: IpNet, message: RouteMessage) -> Result<(), HostError> {
    let request = RouteNetlinkMessage::DelRoute(message);
    let action = || format!("remove the route to {prefix}");
    match netlink.change(action, request, 0).await {
        Err(error) if error.is_errno(nix::libc::ESRCH) => Ok(()),
        result => result,
    }
}
