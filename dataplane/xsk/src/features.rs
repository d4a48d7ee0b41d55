//! What this kernel offers to AF_XDP sockets, and what its absence costs.

use std::os::fd::AsFd;

use crate::bind::register_range;
use crate::frame::FRAME_BYTES;
use crate::memory::Memory;
use crate::sys;

/// A version of Linux, without patch level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion(pub u32, pub u32);

impl KernelVersion {
    /// Of the running kernel.
    pub fn running() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
    }

    /// The first two numbers of a release such as `6.1.0-18-amd64`.
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit());
        Some(Self(
            numbers.next()?.parse().ok()?,
            numbers.next()?.parse().ok()?,
        ))
    }
}

/// Something a kernel may or may not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Stable name.
    pub name: &'static str,
    /// True when it is there.
    pub present: bool,
    /// What it costs to be without.
    pub cost: &'static str,
}

/// Looks what is there: by trying where a try needs no device, else by version, which distributions' backports can
/// make too pessimistic but not wrong.
pub fn probe() -> Vec<Feature> {
    let version = KernelVersion::running();
    let since =
        |major, minor| version.is_some_and(|version| version >= KernelVersion(major, minor));
    vec![
        Feature {
            name: "af-xdp",
            present: sys::xdp_socket().is_ok(),
            cost: "nothing works: the kernel has no AF_XDP sockets, or CAP_NET_RAW is missing",
        },
        Feature {
            name: "ring-remap",
            present: since(6, 4),
            cost: "rings of a bound socket cannot be mapped: a restarted dataplane binds its ports anew, and packets on their way are lost",
        },
        Feature {
            name: "multi-buffer",
            present: since(6, 6),
            cost: "packets are limited to 3840 bytes: no 64 KiB segments, about a third of the TCP throughput, no jumbo frames on the underlay",
        },
        Feature {
            name: "tx-checksum-metadata",
            present: has_tx_metadata(),
            cost: "partial checksums are completed by reading every byte before a packet goes to a pod",
        },
        Feature {
            name: "generic-multi-buffer",
            present: since(6, 9),
            cost: "generic XDP hands over single buffers only: pods cut their TCP into packets of 3800 bytes themselves",
        },
        Feature {
            name: "tx-budget",
            present: has_tx_budget(),
            cost: "a transmit call takes 32 packets: more system calls per packet under load",
        },
    ]
}

fn has_tx_metadata() -> bool {
    let Ok(socket) = sys::xdp_socket() else {
        return false;
    };
    let page = Memory::heap(FRAME_BYTES);
    let address = page.at::<u8>(0, FRAME_BYTES).as_ptr() as u64;
    register_range(socket.as_fd(), address, FRAME_BYTES as u64, true).unwrap_or(false)
}

fn has_tx_budget() -> bool {
    let Ok(socket) = sys::xdp_socket() else {
        return false;
    };
    let option = |name, value: u32| sys::set_option(socket.as_fd(), libc::SOL_XDP, name, &value);
    option(libc::XDP_TX_RING, 64).is_ok() && option(sys::XDP_MAX_TX_SKB_BUDGET, 64).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_parse() {
        assert_eq!(
            KernelVersion::parse("6.1.0-18-amd64\n"),
            Some(KernelVersion(6, 1))
        );
        assert_eq!(KernelVersion::parse("6.18.44"), Some(KernelVersion(6, 18)));
        assert_eq!(KernelVersion::parse("5.15-rc1"), Some(KernelVersion(5, 15)));
        assert_eq!(KernelVersion::parse("linux"), None);
        assert!(KernelVersion(6, 10) > KernelVersion(6, 9));
    }

    #[test]
    #[cfg_attr(miri, ignore = "system calls")]
    fn every_feature_is_named_once_and_has_a_price() {
        let features = probe();
        let names: std::collections::HashSet<_> =
            features.iter().map(|feature| feature.name).collect();
        assert_eq!(names.len(), features.len());
        assert!(features.iter().all(|feature| !feature.cost.is_empty()));
    }
}
