//! Interfaces that take what XDP redirects to them, which a shortcut out of a tunnel does.
//!
//! A veth takes it only while its other end makes large packets of what comes (GRO). The keeper switches that on, but
//! whoever lives in the pod may switch it off again, and the kernel then drops what is redirected there
//! (`xdp_ok_fwd_dev`, include/linux/filter.h; `veth_set_features`, drivers/net/veth.c). It says so by generic netlink,
//! from 6.3 on: Documentation/netlink/specs/netdev.yaml.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    NLA_ALIGNTO, NLA_HEADER_SIZE, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer, NlaBuffer,
    NlasIterator, parse_u16, parse_u32, parse_u64,
};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::time::TimeVal;

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY` and attributes of linux/genetlink.h.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const GROUPS: u16 = 7;
const GROUP_NAME: u16 = 1;
const GROUP_ID: u16 = 2;

/// Of linux/netdev.h.
const FAMILY: &str = "netdev";
const GROUP: &str = "mgmt";
const DEV_GET: u8 = 1;
const DEV_CHANGE_NTF: u8 = 4;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_NDO_XMIT`.
const TAKES_REDIRECTS: u64 = 1 << 2;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 16;
const GENERIC_BYTES: usize = 4;
const ATTRIBUTES_AT: usize = HEADER_BYTES + GENERIC_BYTES;
const BUFFER_BYTES: usize = 64 << 10;
/// The kernel answers within the call; this is for one that does not.
const PATIENCE: TimeVal = TimeVal::new(1, 0);

/// Asks the kernel.
pub struct RedirectTargets {
    socket: Socket,
    family: u16,
    buffer: Vec<u8>,
}

/// A subscription to what changes.
pub struct TargetWatch {
    socket: Socket,
    family: u16,
    buffer: Vec<u8>,
}

/// What one read of the subscription said.
#[derive(Debug, PartialEq, Eq)]
pub enum TargetNews {
    /// Interfaces that took nothing when this was said, by index. It may be old: that of a pod's new interface is
    /// always said, before weft has switched its GRO on. Ask.
    Refused(Vec<u32>),
    /// Notifications were lost: ask about every port.
    Overrun,
}

/// Subscribes, then can ask; the sockets belong to the calling thread's network namespace.
///
/// # Errors
/// What the kernel says to the sockets' calls, or that it cannot tell (before 6.3).
pub fn open() -> io::Result<(RedirectTargets, TargetWatch)> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    setsockopt(&socket, ReceiveTimeout, &PATIENCE)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let question = request(CONTROL, GET_FAMILY, FAMILY_NAME, &text(FAMILY));
    let (family, group) = family_of(ask(&socket, &question, &mut buffer)?)
        .ok_or_else(|| not_understood("its family netdev"))?;
    let mut news = Socket::new(NETLINK_GENERIC)?;
    news.bind_auto()?;
    news.add_membership(group)?;
    let watch = TargetWatch {
        socket: news,
        family,
        buffer: buffer.clone(),
    };
    let targets = RedirectTargets {
        socket,
        family,
        buffer,
    };
    Ok((targets, watch))
}

impl RedirectTargets {
    /// Whether an interface takes what is redirected to it now.
    ///
    /// # Errors
    /// What the kernel says, as that there is no such interface.
    pub fn takes(&mut self, ifindex: u32) -> io::Result<bool> {
        let question = request(self.family, DEV_GET, IFINDEX, &ifindex.to_ne_bytes());
        match target(ask(&self.socket, &question, &mut self.buffer)?) {
            Some((about, takes)) if about == ifindex => Ok(takes),
            _ => Err(not_understood("an interface")),
        }
    }
}

impl TargetWatch {
    /// Waits for news.
    ///
    /// # Errors
    /// What the kernel says to recv; an overrun is not an error.
    pub fn wait(&mut self) -> io::Result<TargetNews> {
        match self.socket.recv(&mut &mut self.buffer[..], 0) {
            Ok(len) => Ok(TargetNews::Refused(refusing(
                self.buffer.get(..len).unwrap_or_default(),
                self.family,
            ))),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOBUFS) => Ok(TargetNews::Overrun),
                Some(libc::EINTR) => Ok(TargetNews::Refused(Vec::new())),
                _ => Err(error),
            },
        }
    }
}

impl AsFd for TargetWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn not_understood(about: &str) -> io::Error {
    io::Error::other(format!(
        "what the kernel says about {about} is not understood"
    ))
}

/// A name as attributes hold it.
fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// A request to a family, with one attribute.
fn request(family: u16, command: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
    let end = ATTRIBUTES_AT + NLA_HEADER_SIZE + value.len();
    let mut bytes = vec![0; end.next_multiple_of(NLA_ALIGNTO)];
    let mut header = NetlinkBuffer::new(&mut bytes);
    header.set_length(end.next_multiple_of(NLA_ALIGNTO) as u32);
    header.set_message_type(family);
    header.set_flags(NLM_F_REQUEST);
    bytes[HEADER_BYTES] = command;
    bytes[HEADER_BYTES + 1] = VERSION;
    let mut nla = NlaBuffer::new(&mut bytes[ATTRIBUTES_AT..]);
    nla.set_kind(attribute);
    nla.set_length((NLA_HEADER_SIZE + value.len()) as u16);
    nla.value_mut().copy_from_slice(value);
    bytes
}

/// The attributes of the answer to a question.
fn ask<'a>(socket: &Socket, question: &[u8], buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    socket.send(question, 0)?;
    let len = socket.recv(&mut &mut *buffer, 0)?;
    let answer = buffer.get(..len).unwrap_or_default();
    match NetlinkBuffer::new_checked(answer).map(|it| (it.message_type(), it.payload())) {
        Ok((NLMSG_ERROR, error)) => {
            let number = error.first_chunk().map_or(0, |it| i32::from_ne_bytes(*it));
            Err(io::Error::from_raw_os_error(number.wrapping_neg()))
        }
        Ok((_, payload)) => Ok(payload.get(GENERIC_BYTES..).unwrap_or_default()),
        Err(_) => Err(not_understood("anything")),
    }
}

/// Attributes up to the first that is none, by kind.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|it| {
        let end = usize::from(it.length());
        let whole = it.into_inner();
        (
            it.kind(),
            whole.get(NLA_HEADER_SIZE..end).unwrap_or_default(),
        )
    })
}

fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|it| it.0 == kind)
        .map(|(_, value)| value)
}

/// Number of the family, and of the group that hears of changes.
fn family_of(answer: &[u8]) -> Option<(u16, u32)> {
    let family = parse_u16(attribute(answer, FAMILY_ID)?).ok()?;
    let group = attributes(attribute(answer, GROUPS)?)
        .find(|(_, group)| attribute(group, GROUP_NAME) == Some(&text(GROUP)))?
        .1;
    Some((family, parse_u32(attribute(group, GROUP_ID)?).ok()?))
}

/// An interface's index, and whether it takes what is redirected to it.
fn target(message: &[u8]) -> Option<(u32, bool)> {
    let ifindex = parse_u32(attribute(message, IFINDEX)?).ok()?;
    let features = parse_u64(attribute(message, XDP_FEATURES)?).ok()?;
    Some((ifindex, features & TAKES_REDIRECTS != 0))
}

/// The interfaces that changed and take nothing, of the messages in `bytes`.
fn refusing(mut bytes: &[u8], family: u16) -> Vec<u32> {
    let mut all = Vec::new();
    while let Ok(message) = NetlinkBuffer::new_checked(bytes) {
        if let Some((&[DEV_CHANGE_NTF, ..], message_attributes)) =
            message.payload().split_first_chunk::<GENERIC_BYTES>()
            && message.message_type() == family
            && let Some((ifindex, false)) = target(message_attributes)
        {
            all.push(ifindex);
        }
        let next = (message.length() as usize).next_multiple_of(NLA_ALIGNTO);
        bytes = bytes.get(next..).unwrap_or_default();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME_FAMILY: u16 = 33;

    fn message(family: u16, command: u8, ifindex: u32, features: u64) -> Vec<u8> {
        let mut bytes = request(family, command, IFINDEX, &ifindex.to_ne_bytes());
        bytes.extend([12_u16, XDP_FEATURES].map(u16::to_ne_bytes).concat());
        bytes.extend(features.to_ne_bytes());
        let len = bytes.len() as u32;
        NetlinkBuffer::new(&mut bytes).set_length(len);
        bytes
    }

    #[test]
    fn only_changes_to_nothing_are_reported_and_cut_messages_end_the_walk() {
        let bytes = [
            message(SOME_FAMILY, DEV_CHANGE_NTF, 3, 0x7f),
            message(SOME_FAMILY, DEV_CHANGE_NTF, 4, 0x23),
            message(SOME_FAMILY, DEV_GET, 5, 0),
            message(SOME_FAMILY + 1, DEV_CHANGE_NTF, 6, 0),
            message(SOME_FAMILY, DEV_CHANGE_NTF, 7, 0),
        ]
        .concat();
        assert_eq!(refusing(&bytes, SOME_FAMILY), [4, 7]);
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(refusing(cut, SOME_FAMILY), [4]);
        for len in 0..bytes.len() {
            refusing(&bytes[..len], SOME_FAMILY);
        }
        assert!(refusing(&[0; 80], SOME_FAMILY).is_empty());
        assert!(refusing(&[0xff; 80], SOME_FAMILY).is_empty());
    }

    #[test]
    fn the_kernel_knows_its_interfaces() {
        let (mut targets, _) = open().expect("Linux 6.3 or later");
        let loopback = nix::net::if_::if_nametoindex("lo").unwrap();
        assert!(!targets.takes(loopback).unwrap());
        let error = targets.takes(u32::MAX >> 1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(!targets.takes(loopback).unwrap(), "it answers on");
    }
}
