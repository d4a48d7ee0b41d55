//! Links that vanish: the kernel's RTM_DELLINK notifications, so that the port of a pod whose
//! namespace was removed without DEL goes and its frames come back.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

const RTMGRP_LINK: u32 = 1;
const RTM_DELLINK: u16 = 17;
const HEADER_BYTES: usize = 16;
const IFINFO_BYTES: usize = 16;

/// A subscription to the node namespace's link notifications.
pub struct LinkWatch {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// What one read of the subscription said.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkNews {
    /// Interfaces that are gone, by index.
    Gone(Vec<u32>),
    /// Notifications were lost: look at every port.
    Overrun,
}

impl LinkWatch {
    /// Subscribes; the socket belongs to the calling thread's network namespace.
    ///
    /// # Errors
    /// What the kernel says to socket and bind.
    pub fn new() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        bind(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            &NetlinkAddr::new(0, RTMGRP_LINK),
        )?;
        Ok(Self {
            socket,
            buffer: vec![0; 64 << 10],
        })
    }

    /// Waits for news.
    ///
    /// # Errors
    /// What the kernel says to recv; an overrun is not an error.
    pub fn wait(&mut self) -> io::Result<LinkNews> {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&self.socket);
        match recv(fd, &mut self.buffer, MsgFlags::empty()) {
            Ok(len) => Ok(LinkNews::Gone(gone_links(
                &self.buffer[..len.min(self.buffer.len())],
            ))),
            Err(Errno::ENOBUFS) => Ok(LinkNews::Overrun),
            Err(Errno::EINTR) => Ok(LinkNews::Gone(Vec::new())),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for LinkWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Interface indices of the RTM_DELLINK messages in `bytes`. AF_BRIDGE messages say that a link
/// left a bridge, not that it is gone.
fn gone_links(mut bytes: &[u8]) -> Vec<u32> {
    let mut gone = Vec::new();
    while bytes.len() >= HEADER_BYTES {
        let word = |at: usize| {
            bytes
                .get(at..at + 4)
                .and_then(|b| b.try_into().ok())
                .map_or(0, u32::from_ne_bytes)
        };
        let len = word(0) as usize;
        if len < HEADER_BYTES || len > bytes.len() {
            break;
        }
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        let is_plain = bytes.get(HEADER_BYTES) == Some(&0);
        if kind == RTM_DELLINK && len >= HEADER_BYTES + IFINFO_BYTES && is_plain {
            gone.push(word(HEADER_BYTES + 4));
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, family: u8, index: u32) -> Vec<u8> {
        let mut bytes = vec![0_u8; 32];
        bytes[..4].copy_from_slice(&32_u32.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[16] = family;
        bytes[20..24].copy_from_slice(&index.to_ne_bytes());
        bytes
    }

    #[test]
    fn only_deleted_links_are_reported_and_cut_messages_end_the_walk() {
        let mut bytes = [
            message(16, 0, 3),
            message(17, 0, 4),
            message(17, 7, 5),
            message(17, 0, 6),
        ]
        .concat();
        assert_eq!(gone_links(&bytes), [4, 6]);
        bytes.truncate(100);
        assert_eq!(gone_links(&bytes), [4]);
        assert!(gone_links(&[0; 40]).is_empty());
    }
}
