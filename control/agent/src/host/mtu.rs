//! How large a packet a pod may send.

use std::net::IpAddr;
use std::sync::LazyLock;

use weft_api::object::UnderlayPath;
use weft_api::{LOCAL_MTU, SINGLE_FRAME_MTU};

/// What VXLAN adds to an inner IP packet over IPv4: inner Ethernet 14, VXLAN 8, UDP 8, IPv4 20.
const OVERHEAD_V4: u32 = 50;
/// The same over IPv6, whose header has 40 bytes.
const OVERHEAD_V6: u32 = 70;
/// Used while nothing is known about the underlay: Ethernet's.
const UNKNOWN_UNDERLAY_MTU: u32 = 1_500;

/// The pods' path MTU in bytes: the largest packet that passes every tunnel whole. That is what fits
/// the narrowest of `paths`, and what would fit a tunnel over the narrowest link (`link_mtu`) that
/// holds an address out of `local`: a pod keeps its MTU when another node joins.
pub fn pod_path_mtu(paths: &[UnderlayPath], link_mtu: Option<u32>, local: &[IpAddr]) -> u32 {
    let ipv6_only = !local.is_empty() && local.iter().all(IpAddr::is_ipv6);
    let link = inner(link_mtu.unwrap_or(UNKNOWN_UNDERLAY_MTU), ipv6_only);
    let tunnels = paths
        .iter()
        .map(|path| inner(path.mtu, path.vtep.is_ipv6()));
    tunnels.fold(link, u32::min).min(local_mtu())
}

/// The largest packet of TCP between ports of this node, in bytes.
pub fn local_mtu() -> u32 {
    static RELEASE: LazyLock<String> = LazyLock::new(|| {
        let name = nix::sys::utsname::uname();
        name.map_or_else(
            |_| String::new(),
            |name| name.release().to_string_lossy().into_owned(),
        )
    });
    match has_multi_buffer(&RELEASE) {
        true => LOCAL_MTU,
        false => SINGLE_FRAME_MTU,
    }
}

/// Whether generic XDP of this kernel release hands over packets of several frames: since 6.9. A release that cannot
/// be read counts as new.
fn has_multi_buffer(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse::<u32>().ok();
    match (number(), number()) {
        (Some(major), Some(minor)) => (major, minor) >= (6, 9),
        _ => true,
    }
}

fn inner(outer_mtu: u32, ipv6: bool) -> u32 {
    outer_mtu.saturating_sub(if ipv6 { OVERHEAD_V6 } else { OVERHEAD_V4 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_api::MacAddr;

    fn path(vtep: &str, mtu: u32) -> UnderlayPath {
        UnderlayPath {
            vtep: vtep.parse().unwrap(),
            ifname: "u0".into(),
            source: vtep.parse().unwrap(),
            source_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            next_hop_mac: None,
            mtu,
        }
    }

    #[test]
    fn narrowest_path_or_link_decides() {
        let paths = [path("192.0.2.1", 9000), path("192.0.2.2", 1500)];
        assert_eq!(pod_path_mtu(&paths, Some(9000), &[]), 1450);
        assert_eq!(pod_path_mtu(&paths, Some(1400), &[]), 1350);
        let paths = [path("2001:db8::1", 1500), path("192.0.2.2", 1490)];
        assert_eq!(pod_path_mtu(&paths, Some(9000), &[]), 1430);
    }

    #[test]
    fn link_decides_while_there_is_no_path() {
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(pod_path_mtu(&[], Some(9000), &[v6, v4]), 8950);
        assert_eq!(pod_path_mtu(&[], Some(9000), &[v6]), 8930);
        assert_eq!(pod_path_mtu(&[], None, &[v4]), 1450);
        assert_eq!(pod_path_mtu(&[], Some(65_536), &[v4]), LOCAL_MTU);
    }

    #[test]
    fn large_packets_are_for_kernels_that_hand_them_over() {
        for (release, large) in [
            ("6.1.0-50-amd64", false),
            ("6.8.12", false),
            ("6.9.0", true),
            ("6.18.44", true),
            ("7.0-rc1", true),
            ("?", true),
        ] {
            assert_eq!(has_multi_buffer(release), large, "{release}");
        }
    }
}
