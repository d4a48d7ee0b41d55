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
    let (mut index, mut address, mut chosen, mut mtu) = (None, vtep, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Gateway(gateway) => address = as_ip(gateway).unwrap_or(vtep),
            // An IPv4 route by way of an IPv6 next hop (RFC 5549).
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => address = (*gateway).into(),
            RouteAttribute::Via(RouteVia::Inet(gateway)) => address = (*gateway).into(),
            RouteAttribute::PrefSource(preferred) => chosen = as_ip(preferred),
            RouteAttribute::Metrics(metrics) => mtu = mtu_of(metrics),
            _ => {}
        }
    }
    let lacks = |what| format!("the route to node address {vtep} has no {what}");
    let index = index.ok_or_else(|| lacks("interface"))?;
    let source = source.or(chosen).ok_or_else(|| lacks("source address"))?;
    let hop = Hop { index, address };
    Ok(Way { hop, source, mtu })
}
