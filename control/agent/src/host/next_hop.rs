//! One route lookup: where the kernel would send a packet to another node.

use std::net::IpAddr;

use netlink_packet_core::NLM_F_REQUEST;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType, RouteVia};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::neighbour::Hop;
use super::routes::{as_ip, mtu_of};
use super::{HostError, Netlink};

/// A way to a tunnel endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Whose MAC the packets go to: the gateway, or the endpoint itself.
    pub hop: Hop,
    /// Outer source address.
    pub source: IpAddr,
    /// The route's own MTU, or the one the kernel learned for this destination, in bytes.
    pub mtu: Option<u32>,
}

/// Asks the kernel for the way to `vtep`, from `source` if given; the inner error is a sentence.
/// Not RTM_F_FIB_MATCH: the answer to a plain lookup holds what was learned about this one
/// destination, a redirect or a path MTU, which the route itself does not.
pub(super) async fn look_up(
    netlink: &Netlink,
    vtep: IpAddr,
    source: Option<IpAddr>,
) -> Result<Result<Way, String>, HostError> {
    let mut message = RouteMessage::default();
    let (family, bits) = match vtep {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = bits;
    message
        .attributes
        .push(RouteAttribute::Destination(vtep.into()));
    if let Some(source) = source {
        message.header.source_prefix_length = bits;
        message
            .attributes
            .push(RouteAttribute::Source(source.into()));
    }
    let request = RouteNetlinkMessage::GetRoute(message);
    let answers = match netlink.request(request, NLM_F_REQUEST).await {
        Ok(answers) => answers,
        // Lost answers are the socket's trouble, all else is the kernel's word on this route.
        Err(source) if source.raw_os_error() == Some(nix::libc::ENOBUFS) => {
            return Err(HostError::Netlink {
                action: format!("look up the route to {vtep}"),
                source,
            });
        }
        Err(error) => return Ok(Err(format!("no route to node address {vtep}: {error}"))),
    };
    let route = answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewRoute(route) => Some(route),
        _ => None,
    });
    Ok(route
        .ok_or_else(|| format!("no route to node address {vtep}"))
        .and_then(|route| read(&route, vtep, source)))
}

fn read(route: &RouteMessage, vtep: IpAddr, source: Option<IpAddr>) -> Result<Way, String> {
    match route.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => {
            return Err(format!(
                "node address {vtep} of another node is this node's own"
            ));
        }
        other => {
            return Err(format!(
                "the route to node address {vtep} leads nowhere ({other:?})"
            ));
        }
    }
    let mut way = Way {
        hop: Hop {
            index: 0,
            address: vtep,
        },
        source: source.unwrap_or(vtep),
        mtu: None,
    };
    let mut chosen = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => way.hop.index = *index,
            RouteAttribute::Gateway(address) => {
                way.hop.address = as_ip(address).unwrap_or(vtep);
            }
            // An IPv4 route by way of an IPv6 next hop (RFC 5549).
            RouteAttribute::Via(RouteVia::Inet6(address)) => way.hop.address = (*address).into(),
            RouteAttribute::Via(RouteVia::Inet(address)) => way.hop.address = (*address).into(),
            RouteAttribute::PrefSource(address) => chosen = as_ip(address),
            RouteAttribute::Metrics(metrics) => way.mtu = mtu_of(metrics),
            _ => {}
        }
    }
    if way.hop.index == 0 {
        return Err(format!(
            "the route to node address {vtep} names no interface"
        ));
    }
    match (source, chosen) {
        (None, None) => Err(format!(
            "the route to node address {vtep} has no source address"
        )),
        (None, Some(chosen)) => Ok(Way {
            source: chosen,
            ..way
        }),
        (Some(_), _) => Ok(way),
    }
}
