//! CHECK's look into the pod: what is missing or wrong, a sentence each.
//!
//! Only what ADD set up is looked at, and only what does not settle by itself: an interface counts
//! as up when it is administratively up, because its operational state may follow a moment later.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric,
};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use weft_api::{GATEWAY_MAC, MacAddr};

use crate::error::Error;
use crate::netlink::Netlink;
use crate::pod_end::{DEFAULT_ROUTES, TCP_TABLE, family, gateway, has_family};

/// What the pod should hold.
pub(crate) struct Expected<'a> {
    /// Interface name.
    pub(crate) ifname: &'a str,
    /// Its MAC, where known.
    pub(crate) mac: Option<MacAddr>,
    /// Its addresses.
    pub(crate) addresses: &'a [IpAddr],
}

/// Compares the pod with `expected`. The calling thread is in the pod's namespace.
pub(crate) fn problems(expected: &Expected<'_>) -> Result<Vec<String>, Error> {
    let mut netlink = Netlink::open()?;
    let Some(index) = nix::net::if_::if_nametoindex(expected.ifname).ok() else {
        return Ok(vec![format!("{} is gone from the pod", expected.ifname)]);
    };
    let mut found = Vec::new();
    link(&mut netlink, expected, index, &mut found)?;
    addresses(&mut netlink, expected, index, &mut found)?;
    for v4 in [true, false] {
        if has_family(expected.addresses, v4) {
            neighbour(&mut netlink, expected.ifname, index, v4, &mut found)?;
            routes(&mut netlink, index, v4, &mut found)?;
            rule(&mut netlink, v4, &mut found)?;
        }
    }
    Ok(found)
}

fn link(
    netlink: &mut Netlink,
    expected: &Expected<'_>,
    index: u32,
    found: &mut Vec<String>,
) -> Result<(), Error> {
    let ifname = expected.ifname;
    let mut request = LinkMessage::default();
    request.header.index = index;
    let answer = netlink.get(
        "look at the pod's interface",
        0,
        RouteNetlinkMessage::GetLink(request),
    )?;
    for message in answer {
        let RouteNetlinkMessage::NewLink(link) = message else {
            continue;
        };
        if !link.header.flags.contains(LinkFlags::Up) {
            found.push(format!("{ifname} is down in the pod"));
        }
        let mac = link.attributes.iter().find_map(|a| match a {
            LinkAttribute::Address(mac) => <[u8; 6]>::try_from(mac.as_slice()).ok().map(MacAddr),
            _ => None,
        });
        match (expected.mac, mac) {
            (Some(wanted), Some(mac)) if wanted != mac => {
                found.push(format!("{ifname} has the MAC {mac} instead of {wanted}"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn addresses(
    netlink: &mut Netlink,
    expected: &Expected<'_>,
    index: u32,
    found: &mut Vec<String>,
) -> Result<(), Error> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let answer = netlink.dump("list the pod's addresses", request)?;
    let held = answer.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewAddress(address) if address.header.index == index => {
            address.attributes.into_iter().find_map(|a| match a {
                AddressAttribute::Address(address) => Some(address),
                _ => None,
            })
        }
        _ => None,
    });
    let held = held.collect::<Vec<_>>();
    let missing = expected.addresses.iter().filter(|a| !held.contains(a));
    let ifname = expected.ifname;
    found.extend(missing.map(|a| format!("{ifname} has lost its address {a}")));
    Ok(())
}

fn neighbour(
    netlink: &mut Netlink,
    ifname: &str,
    index: u32,
    v4: bool,
    found: &mut Vec<String>,
) -> Result<(), Error> {
    let mut request = NeighbourMessage::default();
    request.header.family = family(v4);
    let answer = netlink.dump(
        "list the pod's neighbours",
        RouteNetlinkMessage::GetNeighbour(request),
    )?;
    let wanted = match gateway(v4) {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    };
    let wanted = NeighbourAttribute::Destination(wanted);
    let mac = NeighbourAttribute::LinkLayerAddress(GATEWAY_MAC.0.to_vec());
    let right = answer.iter().any(|message| match message {
        RouteNetlinkMessage::NewNeighbour(n) => {
            n.header.ifindex == index
                && n.header.state == NeighbourState::Permanent
                && n.attributes.contains(&wanted)
                && n.attributes.contains(&mac)
        }
        _ => false,
    });
    if !right {
        let gateway = gateway(v4);
        found.push(format!(
            "the permanent neighbour {gateway} with {GATEWAY_MAC} is gone from {ifname}"
        ));
    }
    Ok(())
}

fn routes(
    netlink: &mut Netlink,
    index: u32,
    v4: bool,
    found: &mut Vec<String>,
) -> Result<(), Error> {
    let mut request = RouteMessage::default();
    request.header.address_family = family(v4);
    let answer = netlink.dump(
        "list the pod's routes",
        RouteNetlinkMessage::GetRoute(request),
    )?;
    let via = RouteAttribute::Gateway(RouteAddress::from(gateway(v4)));
    let out = RouteAttribute::Oif(index);
    for (table, name) in [(RouteHeader::RT_TABLE_MAIN, "main"), (TCP_TABLE, "TCP")] {
        let default = answer.iter().find_map(|message| match message {
            RouteNetlinkMessage::NewRoute(r)
                if r.header.table == table
                    && r.header.destination_prefix_length == 0
                    && r.attributes.contains(&via)
                    && r.attributes.contains(&out) =>
            {
                Some(r)
            }
            _ => None,
        });
        let gateway = gateway(v4);
        match default {
            None => found.push(format!(
                "the default route via {gateway} is gone from the pod's {name} table"
            )),
            Some(route) if !has_mtu(route) => found.push(format!(
                "the default route via {gateway} in the pod's {name} table has lost its MTU"
            )),
            Some(_) => {}
        }
    }
    Ok(())
}

fn has_mtu(route: &RouteMessage) -> bool {
    let mut attributes = route.attributes.iter();
    attributes.any(|a| match a {
        RouteAttribute::Metrics(all) => all.iter().any(|m| matches!(m, RouteMetric::Mtu(_))),
        _ => false,
    })
}

fn rule(netlink: &mut Netlink, v4: bool, found: &mut Vec<String>) -> Result<(), Error> {
    let mut request = RuleMessage::default();
    request.header.family = family(v4);
    let answer = netlink.dump(
        "list the pod's rules",
        RouteNetlinkMessage::GetRule(request),
    )?;
    let tcp = RuleAttribute::IpProtocol(netlink_packet_route::IpProtocol::Tcp);
    let own_routes = RuleAttribute::SuppressPrefixLen(DEFAULT_ROUTES);
    let has = |table, attribute: &RuleAttribute| {
        answer.iter().any(|message| match message {
            RouteNetlinkMessage::NewRule(r) => {
                r.header.table == table
                    && r.attributes.contains(&tcp)
                    && r.attributes.contains(attribute)
            }
            _ => false,
        })
    };
    if !has(TCP_TABLE, &tcp) || !has(RouteHeader::RT_TABLE_MAIN, &own_routes) {
        let family = if v4 { "IPv4" } else { "IPv6" };
        found.push(format!("the pod's rule for TCP over {family} is gone"));
    }
    Ok(())
}
