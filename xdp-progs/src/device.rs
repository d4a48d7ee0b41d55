//! Facts about a network device that decide how it is bound.

// UNSAFETY: the number of receive queues in use is told by an ethtool ioctl only. (sysfs shows it
// too, but of the network namespace it was mounted in, which need not be ours.)
#![expect(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `ETHTOOL_GCHANNELS` of `linux/ethtool.h`.
const ETHTOOL_GCHANNELS: u32 = 0x3c;
/// `SIOCETHTOOL` of `linux/sockios.h`.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

/// Receive queues `ifname` uses now, in the calling thread's network namespace. `None` when its
/// driver does not tell (VLAN and bond devices).
///
/// # Errors
/// `ENODEV` when there is no such interface; otherwise what the kernel says.
pub fn receive_queues(ifname: &str) -> io::Result<Option<u32>> {
    let socket = control_socket()?;
    let mut channels = Channels {
        cmd: ETHTOOL_GCHANNELS,
        ..Channels::default()
    };
    let mut request = request_for(ifname)?;
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    // SAFETY: the request names a NUL-terminated interface and points to `channels`, which is live,
    // writable, and of the size the kernel copies for this command.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => Ok(None),
            _ => Err(error),
        };
    }
    let queues = channels.rx_count + channels.combined_count;
    Ok((queues > 0).then_some(queues))
}

fn control_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn request_for(ifname: &str) -> io::Result<libc::ifreq> {
    // SAFETY: `ifreq` is plain data of integers and pointers; all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if ifname.is_empty() || ifname.len() >= request.ifr_name.len() || ifname.contains('\0') {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(ifname.bytes()) {
        *to = from.cast_signed() as libc::c_char;
    }
    Ok(request)
}
