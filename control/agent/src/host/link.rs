//! rtnetlink, narrowed to what the host set-up needs, with errors that say what was being done.

use std::io;

use futures_util::stream::{Stream, StreamExt};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::{Handle, LinkUnspec, MulticastGroup};
use weft_api::MacAddr;

use super::HostError;

/// A route netlink socket of the current network namespace.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its address, where it has an Ethernet one.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Switched on (not: has a carrier).
    pub up: bool,
    /// One end of a veth pair.
    pub veth: bool,
    /// Index of the interface it hangs on; of a veth, its other end. It is another namespace's
    /// index when that is where the other end lives.
    pub peer: Option<u32>,
    /// The other end lives in another namespace.
    pub peer_elsewhere: bool,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace and serves it on the current
    /// tokio runtime.
    ///
    /// # Errors
    /// [`HostError::Netlink`] when the kernel gives no socket.
    pub fn open() -> Result<Self, HostError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(no_socket)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Like [`Netlink::open`], and a stream of what happens in `groups`. An overrun of the socket
    /// shows up as a message of its own, so nothing is missed silently.
    pub(super) fn follow(
        groups: &[MulticastGroup],
    ) -> Result<
        (
            Self,
            impl Stream<Item = NetlinkPayload<RouteNetlinkMessage>> + use<>,
        ),
        HostError,
    > {
        let (connection, handle, messages) =
            rtnetlink::new_multicast_connection(groups).map_err(no_socket)?;
        tokio::spawn(connection);
        Ok((
            Self { handle },
            messages.map(|(message, _)| message.payload),
        ))
    }

    /// Makes one change and waits for the kernel's word on it.
    pub(super) async fn change(
        &self,
        action: impl FnOnce() -> String,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), HostError> {
        let answer = self.request(message, NLM_F_REQUEST | NLM_F_ACK | flags);
        match answer.await {
            Ok(_) => Ok(()),
            Err(source) => Err(HostError::Netlink {
                action: action(),
                source,
            }),
        }
    }

    /// Lists all objects of a kind.
    pub(super) async fn dump(
        &self,
        what: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, HostError> {
        let answer = self.request(message, NLM_F_REQUEST | NLM_F_DUMP).await;
        answer.map_err(|source| HostError::Netlink {
            action: format!("list {what}"),
            source,
        })
    }

    /// Sends one request and collects its answers.
    pub(super) async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let mut handle = self.handle.clone();
        let mut answers = handle.request(request).map_err(io::Error::other)?;
        let mut received = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => received.push(message),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(error.to_io());
                }
                NetlinkPayload::Overrun(_) => {
                    return Err(io::Error::from_raw_os_error(nix::libc::ENOBUFS));
                }
                _ => {}
            }
        }
        Ok(received)
    }

    /// The interface called `name`.
    ///
    /// # Errors
    /// [`HostError::Netlink`] when the kernel refuses to tell.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, HostError> {
        let mut message = LinkMessage::default();
        let name_attribute = LinkAttribute::IfName(name.to_owned());
        message.attributes.push(name_attribute);
        let answer = self.request(RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST);
        match answer.await {
            Ok(messages) => Ok(messages.into_iter().find_map(as_link)),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(None),
            Err(source) => Err(HostError::Netlink {
                action: format!("look up interface {name}"),
                source,
            }),
        }
    }

    /// All interfaces of the namespace.
    ///
    /// # Errors
    /// [`HostError::Netlink`] when the kernel refuses to tell.
    pub async fn links(&self) -> Result<Vec<Link>, HostError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let links = self.dump("interfaces", request).await?;
        Ok(links.into_iter().filter_map(as_link).collect())
    }

    /// Deletes an interface; one that is gone already is success.
    pub(super) async fn delete_link(&self, link: &Link) -> Result<(), HostError> {
        let message = LinkUnspec::new_with_index(link.index).build();
        let request = RouteNetlinkMessage::DelLink(message);
        let action = || format!("delete interface {}", link.name);
        match self.change(action, request, 0).await {
            Err(error) if error.is_errno(nix::libc::ENODEV) => Ok(()),
            result => result,
        }
    }
}

impl HostError {
    /// The kernel refused with this error number.
    pub(super) fn is_errno(&self, number: i32) -> bool {
        matches!(self, Self::Netlink { source, .. } if source.raw_os_error() == Some(number))
    }
}

fn no_socket(source: io::Error) -> HostError {
    HostError::Netlink {
        action: "open a route netlink socket".to_owned(),
        source,
    }
}

/// Reads an interface out of its announcement.
pub(super) fn as_link(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        veth: false,
        peer: None,
        peer_elsewhere: false,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(bytes) => link.mac = as_mac(&bytes),
            LinkAttribute::Link(index) => link.peer = Some(index),
            LinkAttribute::LinkNetNsId(_) => link.peer_elsewhere = true,
            LinkAttribute::LinkInfo(info) => {
                link.veth = info.contains(&LinkInfo::Kind(InfoKind::Veth));
            }
            _ => {}
        }
    }
    Some(link)
}

/// An Ethernet address, if `bytes` are one.
pub(super) fn as_mac(bytes: &[u8]) -> Option<MacAddr> {
    bytes.try_into().ok().map(MacAddr)
}
