//! AF_PACKET sockets: whole frames in and out of one interface.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::Context;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send,
    setsockopt, socket, sockopt,
};

/// `sll_pkttype` of a frame this machine itself sends (PACKET_OUTGOING).
const OUTGOING: u8 = 4;
/// Room for about 50 ms of full-size frames at a gigabit per second in each direction.
const BUFFER_BYTES: usize = 8 << 20;

/// A raw socket on one interface.
pub struct PacketSocket {
    fd: OwnedFd,
    link: LinkAddr,
}

impl PacketSocket {
    /// Opens `interface` of the current network namespace.
    pub fn open(interface: &str) -> anyhow::Result<Self> {
        let link = link_address(interface)?;
        let fd = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::EthAll,
        )
        .context("cannot open a packet socket")?;
        // Best effort: the limit of an unprivileged namespace may be lower.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &BUFFER_BYTES);
        bind(fd.as_raw_fd(), &link)
            .with_context(|| format!("cannot bind a packet socket to {interface}"))?;
        Ok(Self { fd, link })
    }

    /// The interface's own MAC address.
    pub fn mac(&self) -> [u8; 6] {
        self.link.addr().unwrap_or_default()
    }

    /// Takes one frame that came in by the interface; none is waiting: `None`. Frames this machine
    /// sends are skipped, and so are those caught before the socket was bound.
    pub fn receive(&self, frame: &mut [u8]) -> anyhow::Result<Option<usize>> {
        loop {
            match recvfrom::<LinkAddr>(self.fd.as_raw_fd(), frame) {
                Ok((len, Some(from)))
                    if from.pkttype() != OUTGOING && from.ifindex() == self.link.ifindex() =>
                {
                    return Ok(Some(len));
                }
                Ok(_) | Err(Errno::EINTR | Errno::ENETDOWN) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(error) => return Err(error).context("cannot receive a frame"),
            }
        }
    }

    /// Sends one frame, waiting while the interface's queue is full.
    pub fn send(&self, frame: &[u8]) -> anyhow::Result<()> {
        loop {
            match send(self.fd.as_raw_fd(), frame, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => std::thread::yield_now(),
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot send a frame of {} bytes", frame.len()));
                }
            }
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The link-layer address of `interface`, index included. Its protocol is 0, which makes `bind`
/// keep the socket's own.
fn link_address(interface: &str) -> anyhow::Result<LinkAddr> {
    getifaddrs()
        .context("cannot list the interfaces")?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .with_context(|| format!("no interface {interface} here"))
}

/// The addresses of `interface`, link-local ones left out.
pub fn addresses(interface: &str) -> anyhow::Result<Vec<IpAddr>> {
    let entries = getifaddrs().context("cannot list the interfaces")?;
    Ok(entries
        .filter(|entry| entry.interface_name == interface)
        .filter_map(|entry| {
            let address = entry.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
        })
        .filter(|address| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()))
        .collect())
}
