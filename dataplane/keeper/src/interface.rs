//! Network devices, as the keeper's own network namespace sees them.

use std::io;
use std::os::fd::AsRawFd;

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use weft_xdp_progs::device;

/// A device and how many receive queues it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Receive queues in use; at least 1.
    pub queues: u32,
}

impl Interface {
    /// Looks `ifname` up.
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn lookup(ifname: &str) -> io::Result<Self> {
        let index = if_nametoindex(ifname)?;
        let queues = match device::receive_queues(ifname)? {
            Some(queues) => queues,
            // VLAN and bond devices do not tell by ethtool; what they were made with is what they use.
            None => queues_made_with(index)?,
        };
        Ok(Self {
            index,
            queues: queues.max(1),
        })
    }
}

/// True while an interface with this index exists. (nix's `if_indextoname` does not notice a failure.)
pub fn exists(index: u32) -> bool {
    !matches!(queues_made_with(index), Err(error) if error.raw_os_error() == Some(libc::ENODEV))
}

const NLMSG_HEADER: usize = 16;
const IFINFO_MESSAGE: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
/// Longest answer about one device: its attributes with statistics take about 2 KiB.
const ANSWER_BYTES_MAX: usize = 32 << 10;

/// The index of a veth's other end, in the namespace where that is.
///
/// # Errors
/// `ENODEV` when there is none.
pub fn far_end(index: u32) -> io::Result<u32> {
    let none = || io::Error::from_raw_os_error(libc::ENODEV);
    attribute_of(index, libc::IFLA_LINK)?.ok_or_else(none)
}

/// An attribute of a device that is a number.
///
/// # Errors
/// `ENODEV` when there is no such interface, `EOPNOTSUPP` when this kernel does not have the attribute.
pub(crate) fn number(index: u32, attribute: u16) -> io::Result<u32> {
    let absent = || io::Error::from_raw_os_error(libc::EOPNOTSUPP);
    attribute_of(index, attribute)?.ok_or_else(absent)
}

/// Sets attributes of a device that are numbers (RTM_SETLINK, rtnetlink(7)).
///
/// # Errors
/// What the kernel says.
pub(crate) fn set_numbers(index: u32, attributes: &[(u16, u32)]) -> io::Result<()> {
    let mut request = link_request(libc::RTM_SETLINK, libc::NLM_F_ACK, index).to_vec();
    for (attribute, value) in attributes {
        request.extend((ATTRIBUTE_HEADER as u16 + 4).to_ne_bytes());
        request.extend(attribute.to_ne_bytes());
        request.extend(value.to_ne_bytes());
    }
    let len = request.len() as u32;
    request[0..4].copy_from_slice(&len.to_ne_bytes());
    acknowledged(&ask(&request)?)
}

/// What `NLMSG_ERROR` says: 0 or a negative errno behind the header.
///
/// # Errors
/// That errno, or `InvalidData`.
pub(crate) fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed rtnetlink answer");
    match u32_at(answer, NLMSG_HEADER)
        .ok_or_else(malformed)?
        .cast_signed()
    {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno.wrapping_neg())),
    }
}

fn queues_made_with(index: u32) -> io::Result<u32> {
    Ok(attribute_of(index, libc::IFLA_NUM_RX_QUEUES)?.unwrap_or(1))
}

/// An attribute of a device that is a number (RTM_GETLINK, rtnetlink(7)).
fn attribute_of(index: u32, wanted: u16) -> io::Result<Option<u32>> {
    attribute_in(&ask(&link_request(libc::RTM_GETLINK, 0, index))?, wanted)
}

/// One request to rtnetlink, and its answer's first message.
///
/// # Errors
/// What the socket says; what the kernel says is in the answer.
pub(crate) fn ask(request: &[u8]) -> io::Result<Vec<u8>> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    send(netlink.as_raw_fd(), request, MsgFlags::empty())?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    let len = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(len);
    Ok(answer)
}

/// `struct nlmsghdr` and `struct ifinfomsg` (linux/netlink.h, linux/rtnetlink.h).
fn link_request(kind: u16, flags: i32, index: u32) -> [u8; NLMSG_HEADER + IFINFO_MESSAGE] {
    let mut request = [0; NLMSG_HEADER + IFINFO_MESSAGE];
    let flags = (libc::NLM_F_REQUEST | flags) as u16;
    request[0..4].copy_from_slice(&((NLMSG_HEADER + IFINFO_MESSAGE) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request[20..24].copy_from_slice(&index.to_ne_bytes());
    request
}

fn attribute_in(answer: &[u8], wanted: u16) -> io::Result<Option<u32>> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed rtnetlink answer");
    let kind = u16_at(answer, 4).ok_or_else(malformed)?;
    if i32::from(kind) == libc::NLMSG_ERROR {
        let errno = u32_at(answer, NLMSG_HEADER).ok_or_else(malformed)?;
        return Err(io::Error::from_raw_os_error(
            errno.cast_signed().wrapping_neg(),
        ));
    }
    let mut rest = answer
        .get(NLMSG_HEADER + IFINFO_MESSAGE..)
        .ok_or_else(malformed)?;
    while let (Some(len), Some(attribute)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let len = usize::from(len);
        if len < ATTRIBUTE_HEADER || len > rest.len() {
            return Err(malformed());
        }
        if attribute == wanted {
            return u32_at(rest, ATTRIBUTE_HEADER)
                .map(Some)
                .ok_or_else(malformed);
        }
        // Attributes start at multiples of four bytes.
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(None)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_one_queue_and_no_ethtool_channels() {
        let lo = Interface::lookup("lo").unwrap();
        assert_eq!(lo.queues, 1);
        assert!(exists(lo.index));
        assert_eq!(queues_made_with(lo.index).unwrap(), 1);
        assert!(far_end(lo.index).is_err(), "it has no other end");
        assert_eq!(number(lo.index, libc::IFLA_MTU).unwrap(), 65_536);
    }

    #[test]
    fn an_absent_interface_is_enodev() {
        for ifname in ["weft-nothere", "", "a-name-that-is-far-too-long"] {
            let error = Interface::lookup(ifname).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{ifname:?}");
        }
        assert_eq!(
            queues_made_with(0x7fff_fff0).unwrap_err().raw_os_error(),
            Some(libc::ENODEV)
        );
        assert!(!exists(0x7fff_fff0));
    }

    #[test]
    fn cut_off_answers_are_errors() {
        for len in 0..NLMSG_HEADER + IFINFO_MESSAGE {
            assert!(attribute_in(&vec![0; len], 31).is_err(), "{len}");
        }
        assert!(acknowledged(&[0; 19]).is_err());
        assert!(acknowledged(&[0; 20]).is_ok());
        let mut lying = vec![0; NLMSG_HEADER + IFINFO_MESSAGE];
        lying.extend([200, 0, 31, 0]);
        assert!(attribute_in(&lying, 31).is_err());
    }
}
