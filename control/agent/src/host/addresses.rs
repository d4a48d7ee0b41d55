//! Addresses the kernel has, on which interface.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{HostError, Netlink};

/// An address on an interface.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The address.
    pub address: IpAddr,
    /// The interface.
    pub index: u32,
    message: AddressMessage,
}

/// All addresses of the namespace.
pub(super) async fn list(netlink: &Netlink) -> Result<Vec<Held>, HostError> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let answers = netlink.dump("addresses", request).await?;
    let held = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewAddress(message) => Some(Held {
            address: own_end(&message)?,
            index: message.header.index,
            message,
        }),
        _ => None,
    });
    Ok(held.collect())
}

/// IFA_LOCAL, or IFA_ADDRESS where the kernel sends only that: on a point-to-point link the latter
/// is the far end.
fn own_end(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => return Some(*local),
            AddressAttribute::Address(other) => address = Some(*other),
            _ => {}
        }
    }
    address
}

/// Makes `wanted`, each as a host route, exactly the addresses of an interface. They skip duplicate
/// address detection: the pod prefix is this node's alone, and an address that is tentative for a
/// second cannot be used meanwhile.
pub(super) async fn set_exactly(
    netlink: &Netlink,
    index: u32,
    wanted: &[IpAddr],
) -> Result<(), HostError> {
    let mut missing = wanted.to_vec();
    for held in list(netlink)
        .await?
        .into_iter()
        .filter(|h| h.index == index)
    {
        let host_route = held.message.header.prefix_len == prefix_len(held.address);
        match missing
            .iter()
            .position(|a| *a == held.address && host_route)
        {
            Some(known) => {
                missing.swap_remove(known);
            }
            None => remove(netlink, held).await?,
        }
    }
    for address in missing {
        add(netlink, index, address).await?;
    }
    Ok(())
}

fn prefix_len(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

async fn add(netlink: &Netlink, index: u32, address: IpAddr) -> Result<(), HostError> {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.scope = AddressScope::Universe;
    message.header.prefix_len = prefix_len(address);
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.attributes = vec![
        AddressAttribute::Address(address),
        AddressAttribute::Local(address),
        AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute),
    ];
    let request = RouteNetlinkMessage::NewAddress(message);
    let action = || format!("set the address {address}");
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    netlink.change(action, request, flags).await
}

async fn remove(netlink: &Netlink, held: Held) -> Result<(), HostError> {
    let request = RouteNetlinkMessage::DelAddress(held.message);
    let action = || format!("remove the address {}", held.address);
    match netlink.change(action, request, 0).await {
        Err(error) if error.is_errno(nix::libc::EADDRNOTAVAIL) => Ok(()),
        result => result,
    }
}
