//! The pod's end: what its namespace holds after ADD.

use std::fs;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, IpProtocol, RouteNetlinkMessage};
use weft_api::agent::Plan;
use weft_api::{GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, SINGLE_FRAME_MTU, TCP_ROUTE_TABLE};

use crate::error::Error;
use crate::netlink::{Netlink, Request};

/// Index of `lo`, the first interface of every namespace.
const LOOPBACK_INDEX: u32 = 1;
/// Priority of the rule that sends TCP to its own routes: after `local` (0), before `main` (32766).
pub(crate) const TCP_RULE_PRIORITY: u32 = 100;
/// Priority of the rule in front of it: all of `main` but default routes comes first, so that a pod with networks of
/// its own (Docker in Docker, a VPN, a second interface) reaches them by TCP too.
const OWN_ROUTES_PRIORITY: u32 = TCP_RULE_PRIORITY - 1;
/// Longest prefix whose routes the rule for a pod's own networks passes over.
pub(crate) const DEFAULT_ROUTES: u32 = 0;
/// What the kernel takes the pod's own packets to come from. A rule by protocol that had to be asked about packets that
/// come in would have the kernel dissect each of them first (`fib_rule_requires_fldissect`, include/net/fib_rules.h).
const OWN_PACKETS: &str = "lo";
/// The TCP-only table, as the route and rule headers hold it.
pub(crate) const TCP_TABLE: u8 = TCP_ROUTE_TABLE as u8;
const _: () = assert!(
    TCP_TABLE as u32 == TCP_ROUTE_TABLE,
    "fits the header's 8 bits"
);

/// Largest TCP segment between pods of a node, with the option that takes part of it in every one (RFC 7323): the kernel
/// makes one packet of two, which together are what `sendfile` sends at once (64 KiB), nothing left over.
const LOCAL_SEGMENT: u32 = (32 << 10) + TIMESTAMPS;
const TIMESTAMPS: u32 = 12;
/// Least bytes of the headers in front of a segment, IPv4 and TCP.
const HEADERS: u32 = 40;

/// The gateway of a family.
pub(crate) fn gateway(v4: bool) -> IpAddr {
    if v4 {
        IpAddr::V4(GATEWAY_V4)
    } else {
        IpAddr::V6(GATEWAY_V6)
    }
}

/// True when the plan has an address of the family.
pub(crate) fn has_family(addresses: &[IpAddr], v4: bool) -> bool {
    addresses.iter().any(|a| a.is_ipv4() == v4)
}

/// Sets `ifname` up as planned. The calling thread is in the pod's namespace.
pub(crate) fn configure(plan: &Plan, ifname: &str) -> Result<(), Error> {
    let refused = |e: weft_ethtool::Error| Error::Refused(e.to_string());
    weft_ethtool::set_features(ifname, weft_ethtool::PORT_OFFLOADS).map_err(refused)?;
    if plan.local_mtu <= SINGLE_FRAME_MTU {
        let single = weft_ethtool::SINGLE_FRAME_OFFLOADS;
        weft_ethtool::set_features(ifname, single).map_err(refused)?;
    }
    if has_family(&plan.addresses, false) {
        // Some runtimes make the namespace with IPv6 switched off on new interfaces.
        set_for(ifname, "ipv6", "disable_ipv6", "0")?;
    }
    // Where there are rules, the kernel looks the source of each datagram up a second time, to tell whether it is the
    // pod's own (`fib_validate_source`, net/ipv4/fib_frontend.c). weft lets no such packet come to a pod. Nothing but
    // time is lost where the setting cannot be written.
    let _ = set_for(ifname, "ipv4", "accept_local", "1");
    let index = nix::net::if_::if_nametoindex(ifname)
        .map_err(|e| Error::io(format!("look up {ifname} in the pod"), e))?;
    Netlink::open()?.batch(requests(plan, ifname, index))
}

/// Removes what does not go with the interface. The calling thread is in the pod's namespace.
pub(crate) fn forget() -> Result<(), Error> {
    let delete = |rule| {
        let message = RouteNetlinkMessage::DelRule(rule);
        Request::new("delete the rules for TCP in the pod", 0, message).or_not()
    };
    let rules = [true, false].into_iter().flat_map(tcp_rules);
    Netlink::open()?.batch(rules.map(delete).collect())
}

/// Sets a kernel setting of the pod's interface, where it is not so already.
fn set_for(ifname: &str, family: &str, setting: &str, value: &str) -> Result<(), Error> {
    let path = format!("/proc/sys/net/{family}/conf/{ifname}/{setting}");
    let read = fs::read_to_string(&path);
    let state = read.map_err(|e| Error::io(format!("read {path} in the pod"), e))?;
    if state.trim() == value {
        return Ok(());
    }
    fs::write(&path, value).map_err(|e| Error::io(format!("write {path} in the pod"), e))
}

/// Everything in the order the kernel needs it: routes want the interface up, gateways a link route.
fn requests(plan: &Plan, ifname: &str, index: u32) -> Vec<Request> {
    let mut all = vec![
        set_up("bring lo up in the pod".into(), LOOPBACK_INDEX),
        no_link_local(ifname, index),
        set_up(format!("bring {ifname} up in the pod"), index),
    ];
    all.extend(plan.addresses.iter().map(|a| address(*a, ifname, index)));
    let link_route = Route {
        v4: true,
        to_gateway: true,
        table: RouteHeader::RT_TABLE_MAIN,
        metrics: Vec::new(),
    };
    for v4 in [true, false] {
        if !has_family(&plan.addresses, v4) {
            continue;
        }
        all.push(neighbour(v4, ifname, index));
        if v4 {
            all.push(link_route.request(index));
        }
        for (table, metrics) in [
            (
                RouteHeader::RT_TABLE_MAIN,
                vec![RouteMetric::Mtu(plan.path_mtu)],
            ),
            (TCP_TABLE, tcp_metrics(plan.local_mtu)),
        ] {
            let default = Route {
                v4,
                to_gateway: false,
                table,
                metrics,
            };
            all.push(default.request(index));
        }
        all.extend(tcp_rules(v4).map(|rule| add_rule(v4, rule)));
    }
    all
}

fn set_up(action: String, index: u32) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    Request::new(action, 0, RouteNetlinkMessage::SetLink(link))
}

/// The pod's only neighbour is a permanent entry, so it needs no link-local address; without one it
/// sends no router solicitations or duplicate address probes from addresses that are not its own.
/// Refused where the kernel has no IPv6.
fn no_link_local(ifname: &str, index: u32) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let family = AfSpecUnspec::Inet6(vec![mode]);
    link.attributes
        .push(LinkAttribute::AfSpecUnspec(vec![family]));
    let action = format!("switch link-local addresses of {ifname} off");
    Request::new(action, 0, RouteNetlinkMessage::SetLink(link)).or_not()
}

fn address(address: IpAddr, ifname: &str, index: u32) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = family(address.is_ipv4());
    message.header.prefix_len = if address.is_ipv4() { 32 } else { 128 };
    message.header.index = index;
    if address.is_ipv6() {
        // The allocator gives it once; detection would keep it tentative for a second.
        message.header.flags = AddressHeaderFlags::Nodad;
    } else {
        message.attributes.push(AddressAttribute::Local(address));
    }
    message.attributes.push(AddressAttribute::Address(address));
    Request::new(
        format!("add address {address} to {ifname} in the pod"),
        NLM_F_CREATE | NLM_F_EXCL,
        RouteNetlinkMessage::NewAddress(message),
    )
}

fn neighbour(v4: bool, ifname: &str, index: u32) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = family(v4);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    let destination = match gateway(v4) {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    };
    message.attributes = vec![
        NeighbourAttribute::Destination(destination),
        NeighbourAttribute::LinkLayerAddress(GATEWAY_MAC.0.to_vec()),
    ];
    Request::new(
        format!("add neighbour {} to {ifname} in the pod", gateway(v4)),
        NLM_F_CREATE | NLM_F_REPLACE,
        RouteNetlinkMessage::NewNeighbour(message),
    )
}

/// A route of the pod.
struct Route {
    v4: bool,
    /// To the gateway itself, directly on the link; else the default route.
    to_gateway: bool,
    table: u8,
    metrics: Vec<RouteMetric>,
}

impl Route {
    fn request(&self, index: u32) -> Request {
        let gateway = gateway(self.v4);
        let mut message = RouteMessage::default();
        message.header.address_family = family(self.v4);
        message.header.table = self.table;
        message.header.protocol = RouteProtocol::Boot;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Oif(index));
        if self.to_gateway {
            message.header.scope = RouteScope::Link;
            message.header.destination_prefix_length = 32;
            message
                .attributes
                .push(RouteAttribute::Destination(gateway.into()));
        } else {
            message
                .attributes
                .push(RouteAttribute::Gateway(gateway.into()));
        }
        if !self.metrics.is_empty() {
            let metrics = RouteAttribute::Metrics(self.metrics.clone());
            message.attributes.push(metrics);
        }
        let to = if self.to_gateway { "to" } else { "default via" };
        Request::new(
            format!(
                "add route {to} {gateway} to table {} in the pod",
                self.table
            ),
            NLM_F_CREATE | NLM_F_EXCL,
            RouteNetlinkMessage::NewRoute(message),
        )
    }
}

/// Of the default route for TCP: the largest packet, and the largest segment the pod announces where that is smaller.
fn tcp_metrics(local_mtu: u32) -> Vec<RouteMetric> {
    let mut metrics = vec![RouteMetric::Mtu(local_mtu)];
    if LOCAL_SEGMENT + HEADERS < local_mtu {
        metrics.push(RouteMetric::Advmss(LOCAL_SEGMENT));
    }
    metrics
}

/// A rule belongs to the namespace, not to the interface: it may be there from an earlier pair.
fn add_rule(v4: bool, rule: RuleMessage) -> Request {
    Request::new(
        format!("add the rule for TCP over {} in the pod", gateway(v4)),
        NLM_F_CREATE | NLM_F_EXCL,
        RouteNetlinkMessage::NewRule(rule),
    )
    .or_exists()
}

/// The pod's own TCP takes the pod's own routes, then the default route of its own table.
fn tcp_rules(v4: bool) -> [RuleMessage; 2] {
    let rule = |table, priority| {
        let mut message = RuleMessage::default();
        message.header.family = family(v4);
        message.header.table = table;
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![
            RuleAttribute::Priority(priority),
            RuleAttribute::Iifname(OWN_PACKETS.to_owned()),
            RuleAttribute::IpProtocol(IpProtocol::Tcp),
        ];
        message
    };
    let mut own_routes = rule(RouteHeader::RT_TABLE_MAIN, OWN_ROUTES_PRIORITY);
    let passed_over = RuleAttribute::SuppressPrefixLen(DEFAULT_ROUTES);
    own_routes.attributes.push(passed_over);
    [own_routes, rule(TCP_TABLE, TCP_RULE_PRIORITY)]
}

pub(crate) fn family(v4: bool) -> AddressFamily {
    if v4 {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_api::{MacAddr, PortName};

    #[test]
    fn rules_for_tcp_are_not_asked_about_packets_that_come_in() {
        let rules = [true, false].into_iter().flat_map(tcp_rules);
        let own = RuleAttribute::Iifname("lo".into());
        assert!(rules.into_iter().all(|it| it.attributes.contains(&own)));
    }

    #[test]
    fn a_pod_announces_half_of_what_one_call_sends_where_a_packet_holds_it() {
        let segment = |local_mtu| {
            let metrics = tcp_metrics(local_mtu).into_iter();
            metrics
                .filter_map(|it| match it {
                    RouteMetric::Advmss(bytes) => Some(bytes),
                    _ => None,
                })
                .next()
        };
        assert_eq!(segment(65_000), Some(32_780));
        assert_eq!(segment(SINGLE_FRAME_MTU), None);
    }

    #[test]
    fn a_pod_of_one_family_gets_nothing_of_the_other() {
        for (address, other) in [("10.1.0.5", "fe80::1"), ("fd00::5", "169.254.1.1")] {
            let plan = Plan {
                port: PortName("weftx".into()),
                mac: MacAddr([2, 0, 0, 0, 0, 1]),
                addresses: vec![address.parse().unwrap()],
                path_mtu: 1450,
                local_mtu: 65_000,
                veth_mtu: 65_535,
            };
            let all = requests(&plan, "eth0", 2);
            assert!(all.iter().all(|r| !r.action.contains(other)));
            // lo, generation mode, up, address, neighbour, two defaults, two rules; v4: the link route.
            let expected = if address.contains('.') { 10 } else { 9 };
            assert_eq!(all.len(), expected);
        }
    }
}
