//! Neighbour entries of next hops: read, asked for, and kept alive.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use weft_api::MacAddr;

use super::link::as_mac;
use super::{HostError, Netlink, RT_PROTOCOL};

/// How often an entry the kernel does not keep by itself (before 5.16) is asked for again: below
/// `gc_stale_time` (60 s), so that it is not collected, and often enough that a next hop with a new
/// MAC is noticed.
const ASK_AGAIN: Duration = Duration::from_secs(12);

/// An entry that vanished or failed is asked for again after this long. Each request makes a
/// notification, which makes us look again: without a pause that would be a loop.
const ASK_LOST: Duration = Duration::from_secs(1);

/// A next hop: an address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Hop {
    /// The interface.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
}

/// What the kernel knows about one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its MAC, while the kernel believes it (any state of NUD_VALID).
    pub mac: Option<MacAddr>,
    /// It did not answer.
    pub failed: bool,
    /// Set by hand, or on an interface that resolves nothing: never to be touched.
    fixed: bool,
    /// The kernel keeps it resolved.
    managed: bool,
    /// It carries our protocol number.
    marked: bool,
}

impl Entry {
    /// We made the kernel keep it.
    pub fn is_ours(&self) -> bool {
        self.marked && !self.fixed
    }
}

/// Which next hop an entry is about.
pub(super) fn hop_of(message: &NeighbourMessage) -> Option<Hop> {
    let address = message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })?;
    let index = message.header.ifindex;
    Some(Hop { index, address })
}

/// All entries of the namespace.
pub(super) async fn list(netlink: &Netlink) -> Result<HashMap<Hop, Entry>, HostError> {
    let mut entries = HashMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = NeighbourMessage::default();
        message.header.family = family;
        let request = RouteNetlinkMessage::GetNeighbour(message);
        for answer in netlink.dump("neighbours", request).await? {
            if let RouteNetlinkMessage::NewNeighbour(message) = answer
                && let Some(hop) = hop_of(&message)
            {
                entries.insert(hop, read(&message));
            }
        }
    }
    Ok(entries)
}

fn read(message: &NeighbourMessage) -> Entry {
    let state = message.header.state;
    let mut entry = Entry {
        mac: None,
        failed: state == NeighbourState::Failed,
        fixed: matches!(state, NeighbourState::Permanent | NeighbourState::Noarp),
        managed: false,
        marked: false,
    };
    for attribute in &message.attributes {
        match attribute {
            // The kernel sends it in valid states only.
            NeighbourAttribute::LinkLayerAddress(bytes) => entry.mac = as_mac(bytes),
            NeighbourAttribute::ExtFlags(flags) => {
                entry.managed = flags.contains(NeighbourExtFlags::Managed);
            }
            NeighbourAttribute::Protocol(protocol) => {
                entry.marked = *protocol == RouteProtocol::Other(RT_PROTOCOL);
            }
            _ => {}
        }
    }
    entry
}

/// Whether to ask for an entry, last asked for so long ago.
pub(super) fn needs_asking(entry: Option<&Entry>, asked: Option<Duration>) -> bool {
    let pause = match entry {
        Some(entry) if entry.fixed || entry.managed => return false,
        Some(entry) if !entry.failed => ASK_AGAIN,
        _ => ASK_LOST,
    };
    asked.is_none_or(|ago| ago >= pause)
}

/// Asks the kernel to resolve a next hop and to keep it so. A kernel that does not know NTF_EXT_MANAGED
/// ignores its attribute, and NTF_USE alone starts one resolution.
pub(super) async fn keep(netlink: &Netlink, hop: Hop) -> Result<(), HostError> {
    let mut message = about(hop);
    message.header.state = NeighbourState::None;
    message.header.flags = NeighbourFlags::Use;
    let managed = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
    let mark = NeighbourAttribute::Protocol(RouteProtocol::Other(RT_PROTOCOL));
    message.attributes.extend([managed, mark]);
    let request = RouteNetlinkMessage::NewNeighbour(message);
    let action = || format!("keep the neighbour {}", hop.address);
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    netlink.change(action, request, flags).await
}

/// Lets the kernel forget an entry; whether it had one does not matter.
pub(super) async fn forget(netlink: &Netlink, hop: Hop) {
    let request = RouteNetlinkMessage::DelNeighbour(about(hop));
    let action = || format!("forget the neighbour {}", hop.address);
    if let Err(error) = netlink.change(action, request, 0).await {
        tracing::debug!(%error, "neighbour not forgotten");
    }
}

fn about(hop: Hop) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    let (family, destination) = match hop.address {
        IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
    };
    message.header.family = family;
    message.header.ifindex = hop.index;
    let destination = NeighbourAttribute::Destination(destination);
    message.attributes.push(destination);
    message
}

/// Sets an entry that never changes.
pub(super) async fn fix(
    netlink: &Netlink,
    index: u32,
    address: IpAddr,
    mac: MacAddr,
) -> Result<(), HostError> {
    let mut message = about(Hop { index, address });
    message.header.state = NeighbourState::Permanent;
    let lladdr = NeighbourAttribute::LinkLayerAddress(mac.0.to_vec());
    message.attributes.push(lladdr);
    let request = RouteNetlinkMessage::NewNeighbour(message);
    let action = || format!("set the neighbour {address}");
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    netlink.change(action, request, flags).await
}
