//! A packet socket for what AF_XDP cannot say: many segments in one packet (GSO), with the size of each, by
//! `PACKET_VNET_HDR` (packet(7)). It only sends, and the kernel copies before the call returns.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use arrayvec::ArrayVec;
use zerocopy::{Immutable, IntoBytes};

use crate::sys;

/// Pieces of one packet. The kernel takes 1,024 (`UIO_MAXIOV`); 64 segments in two pieces each are the most
/// anybody gathers here.
pub const PIECES_MAX: usize = 128;

/// Bytes that may be on their way in the kernel. A receiver's backlog holds 1,000 packets; at 64 KiB each that
/// would be its bound, and half of it never was reached.
const SEND_BUFFER_BYTES: i32 = 32 << 20;

/// What the segments of a GSO packet are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GsoKind {
    /// TCP over IPv4: `VIRTIO_NET_HDR_GSO_TCPV4`.
    TcpV4 = 1,
    /// TCP over IPv6: `VIRTIO_NET_HDR_GSO_TCPV6`.
    TcpV6 = 4,
    /// UDP datagrams over either: `VIRTIO_NET_HDR_GSO_UDP_L4` (Linux 6.2).
    Udp = 5,
}

/// How a GSO packet is to be segmented; the headers in front are repeated before each segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// What each is.
    pub kind: GsoKind,
    /// Bytes of all headers, Ethernet to transport.
    pub header_len: u16,
    /// Payload bytes of each segment but the last.
    pub size: u16,
}

/// `struct virtio_net_hdr` (include/uapi/linux/virtio_net.h), host byte order.
#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
struct VirtioHeader {
    flags: u8,
    gso_type: u8,
    header_len: u16,
    gso_size: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The device has it.
    Yes,
    /// The receiver's queue or the socket's buffer is full.
    NoRoom,
    /// The device is down or gone.
    Down,
    /// The kernel finds the packet wrong.
    Refused,
}

/// Opens a socket that sends by the interface `ifindex`. `queued`: through the device's queueing discipline,
/// where the kernel segments for a device that cannot; else straight into the driver, which must take GSO packets
/// whole.
///
/// # Errors
/// What the kernel says; CAP_NET_RAW is needed.
pub fn open_packet_socket(ifindex: u32, queued: bool) -> io::Result<OwnedFd> {
    let fd = sys::packet_socket()?;
    sys::set_option(fd.as_fd(), libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1_i32)?;
    if !queued {
        sys::set_option(
            fd.as_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            &1_i32,
        )?;
    }
    sys::set_option(
        fd.as_fd(),
        libc::SOL_SOCKET,
        libc::SO_SNDBUFFORCE,
        &SEND_BUFFER_BYTES,
    )?;
    // Protocol 0: nothing is ever received.
    sys::bind_packet(fd.as_fd(), ifindex)?;
    Ok(fd)
}

/// The sending end.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Sends by `fd`, which [`open_packet_socket`] made.
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends one packet, gathered from `pieces`. `checksum`: where summing starts and where the field is from
    /// there, if it holds the pseudo-header's sum only. `gso` needs `checksum`.
    #[inline]
    pub fn send<'a>(
        &self,
        pieces: impl IntoIterator<Item = &'a [u8]>,
        checksum: Option<(u16, u16)>,
        gso: Option<Gso>,
    ) -> Sent {
        let mut header = VirtioHeader::default();
        if let Some((start, offset)) = checksum {
            header.flags = NEEDS_CHECKSUM;
            header.checksum_start = start;
            header.checksum_offset = offset;
        }
        if let Some(gso) = gso {
            header.gso_type = gso.kind as u8;
            header.gso_size = gso.size;
            header.header_len = gso.header_len;
        }
        let mut gathered: ArrayVec<IoSlice<'_>, { PIECES_MAX + 1 }> = ArrayVec::new();
        gathered.push(IoSlice::new(header.as_bytes()));
        for piece in pieces {
            if gathered.try_push(IoSlice::new(piece)).is_err() {
                return Sent::Refused;
            }
        }
        match sys::send_gathered(self.0.as_fd(), &gathered) {
            Ok(()) => Sent::Yes,
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::ENOBUFS | libc::EINTR) => Sent::NoRoom,
                Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV | libc::EBADF) => Sent::Down,
                _ => Sent::Refused,
            },
        }
    }

    /// Another handle of the same socket.
    ///
    /// # Errors
    /// What the kernel says to dup.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
