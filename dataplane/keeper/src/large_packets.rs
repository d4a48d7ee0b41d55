//! How large the packets are that a pod's TCP makes: with a shortcut twice what an IPv4 header can say.
//!
//! A packet costs the same whatever its size, so the fewer the better. The kernel's own limit is 64 KiB, less a header
//! that may be: one segment of ours, and of a write of 128 KiB a third packet with what is left over. With the limit of
//! two segments such a packet takes a shortcut whole ("BIG TCP", `gso_ipv4_max_size`, Linux 6.3). Without one
//! `weft_shortcut_out` has it cut into segments.
//!
//! Segments for other nodes, or for the world, are small, and their packets have to stay below 64 KiB: the tunnel and
//! the world have no shortcuts for larger ones. The kernel knows a limit of segments for that (`gso_max_segs`), which is
//! one number for segments of all sizes; so it has to be right for the largest, and must not be too small for others.
//! What a pod forwards comes with as many segments as it likes: `weft_shortcut_out` lets it pass.

use std::io;

use weft_xdp_progs::intf::POD_SEGMENTS_MAX;

use crate::{interface, kernel};

/// `IFLA_GSO_MAX_SEGS` and `IFLA_GSO_IPV4_MAX_SIZE`, linux/if_link.h.
const GSO_MAX_SEGS: u16 = 40;
const GSO_IPV4_MAX_SIZE: u16 = 63;

/// Large packets: the size of two segments of 64,948 bytes and their headers. With three the kernel waits for more data
/// to come before it sends less (`tcp_tso_should_defer`, net/ipv4/tcp_output.c), and one stream is slower by half.
const LARGE: Limits = Limits {
    bytes: 128 << 10,
    segments: POD_SEGMENTS_MAX,
};
/// The kernel's own (`GSO_LEGACY_MAX_SIZE`, `GSO_MAX_SEGS`).
const USUAL: Limits = Limits {
    bytes: 64 << 10,
    segments: 0xffff,
};

/// The largest wire for which so many segments are a packet of 64 KiB, as without the limit.
const WIRE_MTU_MAX: u32 = 1_500;

/// First version of Linux whose generic XDP hands over the pieces.
const SINCE: (u32, u32) = (6, 9);

#[derive(Clone, Copy)]
struct Limits {
    bytes: u32,
    segments: u32,
}

impl Limits {
    fn set(self, ifindex: u32) -> io::Result<()> {
        let numbers = [
            (GSO_IPV4_MAX_SIZE, self.bytes),
            (GSO_MAX_SEGS, self.segments),
        ];
        interface::set_numbers(ifindex, &numbers)
    }
}

/// Whether pods may make large packets beside uplinks with these MTUs.
pub fn suit(mut wire_mtus: impl Iterator<Item = u32>) -> bool {
    kernel::is_since(SINCE) && wire_mtus.all(|mtu| mtu <= WIRE_MTU_MAX)
}

/// Lets TCP make large packets at an interface, or no longer. It needs `weft_shortcut_out`.
///
/// # Errors
/// What the kernel says.
pub fn allow(ifindex: u32, large: bool) -> io::Result<()> {
    if large {
        return LARGE.set(ifindex);
    }
    // Anybody else's limits stay.
    match interface::number(ifindex, GSO_IPV4_MAX_SIZE) {
        Ok(bytes) if bytes == LARGE.bytes => USUAL.set(ifindex),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::net::if_::if_nametoindex;
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn only_beside_wires_of_ethernets_usual_size() {
        let new_enough = kernel::is_since(SINCE);
        assert_eq!(suit([].into_iter()), new_enough);
        assert_eq!(suit([1_500, 1_280].into_iter()), new_enough);
        assert!(!suit([1_500, 9_000].into_iter()));
    }

    #[test]
    fn limits_are_taken_back_and_those_of_others_stay() {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
        let add = "ip link add p0 type veth peer name p1";
        let added = Command::new("sh").args(["-c", add]).status();
        assert!(added.expect("sh runs").success());
        let index = if_nametoindex("p0").unwrap();
        let bytes = || interface::number(index, GSO_IPV4_MAX_SIZE).unwrap();
        let segments = || interface::number(index, GSO_MAX_SEGS).unwrap();
        if !kernel::is_since(SINCE) {
            return;
        }
        allow(index, true).unwrap();
        assert_eq!((bytes(), segments()), (LARGE.bytes, LARGE.segments));
        allow(index, false).unwrap();
        assert_eq!((bytes(), segments()), (USUAL.bytes, USUAL.segments));
        let theirs = Limits {
            bytes: 40_000,
            segments: 10,
        };
        theirs.set(index).unwrap();
        allow(index, false).unwrap();
        assert_eq!((bytes(), segments()), (theirs.bytes, theirs.segments));
    }
}
