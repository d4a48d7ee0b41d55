//! The node's end of a pod's veth pair.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use weft_api::agent::Plan;
use weft_api::{GATEWAY_MAC, MacAddr, PortName};

use crate::error::Error;
use crate::netlink::{Netlink, Request};
use crate::netns::Netns;

const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_FORWARDING: u16 = 1;
const IPV4_DEVCONF_RP_FILTER: u16 = 8;
const IPV4_DEVCONF_ARP_IGNORE: u16 = 19;

/// Creates the pair, its second end inside the pod's namespace from the start, in one request: the
/// kernel makes both ends or none. A host end left over by an ADD that was killed is replaced, unless
/// its other end is in this very pod: that may be a live attachment, and only DEL may end it.
pub(crate) fn create(
    netlink: &mut Netlink,
    netns: &Netns,
    plan: &Plan,
    ifname: &str,
) -> Result<MacAddr, Error> {
    let mac = random_mac();
    let request = || {
        let action = format!("create veth {} with {ifname} in the pod", plan.port);
        let message = RouteNetlinkMessage::NewLink(pair(netns, plan, ifname, mac));
        vec![Request::new(action, NLM_F_CREATE | NLM_F_EXCL, message)]
    };
    match netlink.batch(request()) {
        Err(Error::Kernel { source, .. }) if is(&source, Errno::EEXIST) => {
            if netns.inside(|| Ok(if_nametoindex(ifname).is_ok()))? {
                return Err(Error::Environment(format!(
                    "CNI_IFNAME {ifname} exists in the pod already"
                )));
            }
            delete(netlink, &plan.port)?;
            netlink.batch(request())?;
        }
        // A namespace of another kind is refused with a bare EINVAL; entering it says why.
        Err(error @ Error::Kernel { .. }) => return netns.inside(|| Err(error)),
        other => other?,
    }
    Ok(mac)
}

/// Brings the host end up as a mere port: the kernel must neither route nor answer on it, whoever
/// else has gone away. It comes up before the pod's end, so that the pod's end finds a carrier and
/// its queue works from the first packet (net/core/link_watch.c would start it later).
pub(crate) fn bring_up(netlink: &mut Netlink, port: &PortName) -> Result<(), Error> {
    for (setting, value) in [("disable_ipv6", "1"), ("forwarding", "0")] {
        let path = format!("/proc/sys/net/ipv6/conf/{port}/{setting}");
        match fs::write(&path, value) {
            // A kernel without IPv6 has nothing to switch off.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(|e| Error::io(format!("write {path}"), e))?,
        }
    }
    let mut as_port = named(port);
    let settings = AfSpecUnspec::Inet(vec![AfSpecInet::Other(port_settings())]);
    as_port
        .attributes
        .push(LinkAttribute::AfSpecUnspec(vec![settings]));
    let mut up = named(port);
    up.header.flags = LinkFlags::Up;
    up.header.change_mask = LinkFlags::Up;
    netlink.batch(vec![
        Request::new(
            format!("switch IPv4 forwarding of {port} off"),
            0,
            RouteNetlinkMessage::SetLink(as_port),
        ),
        Request::new(
            format!("bring {port} up"),
            0,
            RouteNetlinkMessage::SetLink(up),
        ),
    ])
}

/// Deletes the pair; false when it is not there.
pub(crate) fn delete(netlink: &mut Netlink, port: &PortName) -> Result<bool, Error> {
    let message = RouteNetlinkMessage::DelLink(named(port));
    let request = Request::new(format!("delete veth {port}"), 0, message);
    match netlink.batch(vec![request]) {
        Err(Error::Kernel { source, .. }) if is(&source, Errno::ENODEV) => Ok(false),
        other => other.map(|()| true),
    }
}

/// What is wrong with the host end.
pub(crate) fn problems(netlink: &mut Netlink, port: &PortName) -> Result<Vec<String>, Error> {
    let found = netlink.get(
        "look at the host end",
        0,
        RouteNetlinkMessage::GetLink(named(port)),
    );
    let found = match found {
        Err(Error::Kernel { source, .. }) if is(&source, Errno::ENODEV) => {
            return Ok(vec![format!("the host end {port} is gone")]);
        }
        other => other?,
    };
    let up = found.iter().any(|m| {
        matches!(m, RouteNetlinkMessage::NewLink(link) if link.header.flags.contains(LinkFlags::Up))
    });
    Ok(if up {
        Vec::new()
    } else {
        vec![format!("the host end {port} is down")]
    })
}

fn pair(netns: &Netns, plan: &Plan, ifname: &str, mac: MacAddr) -> LinkMessage {
    let end = |name: &str, mac: MacAddr| {
        vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Mtu(plan.veth_mtu),
            LinkAttribute::Address(mac.0.to_vec()),
            // One queue: every bound queue costs the kernel memory per frame of the UMEM.
            LinkAttribute::NumTxQueues(1),
            LinkAttribute::NumRxQueues(1),
        ]
    };
    let mut peer = LinkMessage::default();
    peer.attributes = end(ifname, plan.mac);
    peer.attributes
        .push(LinkAttribute::NetNsFd(netns.descriptor()));
    let mut host = LinkMessage::default();
    host.attributes = end(&plan.port.0, mac);
    host.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    host
}

/// No forwarding; strict source validation, which no packet from a host end can pass because no
/// route points to one; no ARP answers. With the gateway's MAC never the host end's own, this keeps
/// pods cut off when no XDP program is attached.
fn port_settings() -> DefaultNla {
    let settings = [
        (IPV4_DEVCONF_FORWARDING, 0_u32),
        (IPV4_DEVCONF_RP_FILTER, 1),
        (IPV4_DEVCONF_ARP_IGNORE, 8),
    ];
    let settings =
        settings.map(|(kind, value)| DefaultNla::new(kind, value.to_ne_bytes().to_vec()));
    let mut nested = vec![0; settings.as_slice().buffer_len()];
    settings.as_slice().emit(&mut nested);
    DefaultNla::new(IFLA_INET_CONF | NLA_F_NESTED, nested)
}

fn named(port: &PortName) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(port.0.clone()));
    link
}

/// A random, locally administered unicast address. Set explicitly, so that no udev rule changes it
/// behind our back; never the gateway's, which the kernel would then take as its own.
fn random_mac() -> MacAddr {
    loop {
        let bytes = RandomState::new().build_hasher().finish().to_ne_bytes();
        let [first, b, c, d, e, f, ..] = bytes;
        let mac = MacAddr([first & !0b01 | 0b10, b, c, d, e, f]);
        if mac != GATEWAY_MAC {
            return mac;
        }
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_local_unicast_and_differ() {
        let (a, b) = (random_mac(), random_mac());
        assert_ne!(a, b);
        for mac in [a, b] {
            assert_eq!(mac.0[0] & 0b11, 0b10, "{mac}");
        }
    }
}
