//! How large the packets are that a pod's TCP makes: 64 KiB of payload.
//!
//! The kernel's usual limit is 64 KiB less a header that may be, so what a program writes in pieces of 64 KiB, or sends
//! from a file (`sendfile` has no other size), was a packet and a small rest. With a little more two segments of 32,768
//! bytes go as one packet, nothing left over. That is more than an IPv4 header can say ("BIG TCP", `gso_ipv4_max_size`,
//! Linux 6.3): such a packet takes a shortcut whole; without one `weft_shortcut_out` has it cut into its segments.
//!
//! Small segments, for other nodes and for the world, come to less than 64 KiB but for few sizes: 65,536 would have to be
//! less than 53 bytes more than a multiple of theirs. Packets of those are cut as well.

use std::io;

use crate::{interface, kernel};

/// `IFLA_GSO_IPV4_MAX_SIZE`, linux/if_link.h.
const GSO_IPV4_MAX_SIZE: u16 = 63;

/// Two segments, and what TCP keeps for headers (`MAX_TCP_HEADER` and 1, at most).
const LARGE_BYTES: u32 = (64 << 10) + 321;
/// The kernel's own (`GSO_LEGACY_MAX_SIZE`).
const USUAL_BYTES: u32 = 64 << 10;

/// First version of Linux whose generic XDP hands over the pieces.
const SINCE: (u32, u32) = (6, 9);

/// Whether this kernel takes large packets and their pieces.
pub fn are_taken() -> bool {
    kernel::is_since(SINCE)
}

/// Lets TCP make large packets at an interface, or no longer. It needs `weft_shortcut_out`.
///
/// # Errors
/// What the kernel says.
pub fn allow(ifindex: u32, large: bool) -> io::Result<()> {
    let bytes = match large {
        true => LARGE_BYTES,
        // Anybody else's limit stays.
        false if interface::number(ifindex, GSO_IPV4_MAX_SIZE).ok() != Some(LARGE_BYTES) => {
            return Ok(());
        }
        false => USUAL_BYTES,
    };
    interface::set_numbers(ifindex, &[(GSO_IPV4_MAX_SIZE, bytes)])
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::net::if_::if_nametoindex;
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn the_limit_is_taken_back_and_that_of_others_stays() {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
        let add = "ip link add p0 type veth peer name p1";
        let added = Command::new("sh").args(["-c", add]).status();
        assert!(added.expect("sh runs").success());
        let index = if_nametoindex("p0").unwrap();
        let bytes = || interface::number(index, GSO_IPV4_MAX_SIZE).unwrap();
        if !are_taken() {
            return;
        }
        allow(index, true).unwrap();
        assert_eq!(bytes(), LARGE_BYTES);
        allow(index, false).unwrap();
        assert_eq!(bytes(), USUAL_BYTES);
        interface::set_numbers(index, &[(GSO_IPV4_MAX_SIZE, 40_000)]).unwrap();
        allow(index, false).unwrap();
        assert_eq!(bytes(), 40_000);
    }
}
