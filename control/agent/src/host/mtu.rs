//! How large a packet a pod may send.

use std::net::IpAddr;

use weft_api::LOCAL_MTU;
use weft_api::object::UnderlayPath;

/// What VXLAN adds to an inner IP packet over IPv4: inner Ethernet 14, VXLAN 8, UDP 8, IPv4 20.
pub const OVERHEAD_V4: u32 = 50;
/// The same over IPv6, whose header has 40 bytes.
pub const OVERHEAD_V6: u32 = 70;
/// Used while nothing is known about the underlay: Ethernet's.
const UNKNOWN_UNDERLAY_MTU: u32 = 1_500;
/// IPv6 works on no smaller link (RFC 8200, section 5). An underlay too small for it is reported
/// by what does not fit; a smaller pod MTU would only switch the pods' IPv6 off silently.
const MTU_MIN: u32 = 1_280;

/// The largest inner IP packet that fits an outer one of `outer_mtu` bytes towards `vtep`.
pub fn inner(outer_mtu: u32, vtep: IpAddr) -> u32 {
    let overhead = match vtep {
        IpAddr::V4(_) => OVERHEAD_V4,
        IpAddr::V6(_) => OVERHEAD_V6,
    };
    outer_mtu.saturating_sub(overhead)
}

/// The pods' path MTU in bytes: `explicit` where the administrator gave one; else what fits the
/// narrowest path to another node; without other nodes, what would fit a tunnel over the narrowest
/// link (`link_mtu`) that holds an address out of `local`, since a pod keeps its MTU when a second
/// node joins.
pub fn pod_path_mtu(
    explicit: Option<u32>,
    paths: &[UnderlayPath],
    link_mtu: Option<u32>,
    local: &[IpAddr],
) -> u32 {
    if let Some(mtu) = explicit {
        return mtu.clamp(MTU_MIN, LOCAL_MTU);
    }
    let narrowest = paths.iter().map(|path| inner(path.mtu, path.vtep)).min();
    let mtu = narrowest.unwrap_or_else(|| {
        let outer = link_mtu.unwrap_or(UNKNOWN_UNDERLAY_MTU);
        // Tunnels are IPv4 wherever both nodes have it.
        let family = local.iter().find(|a| a.is_ipv4()).or(local.first());
        inner(outer, family.copied().unwrap_or(IpAddr::from([0; 4])))
    });
    mtu.clamp(MTU_MIN, LOCAL_MTU)
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
    fn narrowest_path_decides() {
        let paths = [path("192.0.2.1", 9000), path("192.0.2.2", 1500)];
        assert_eq!(pod_path_mtu(None, &paths, Some(9000), &[]), 1450);
        let paths = [path("2001:db8::1", 1500), path("192.0.2.2", 1490)];
        assert_eq!(pod_path_mtu(None, &paths, None, &[]), 1430);
    }

    #[test]
    fn link_decides_while_there_is_no_path() {
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(pod_path_mtu(None, &[], Some(9000), &[v6, v4]), 8950);
        assert_eq!(pod_path_mtu(None, &[], Some(9000), &[v6]), 8930);
        assert_eq!(pod_path_mtu(None, &[], None, &[v4]), 1450);
    }

    #[test]
    fn explicit_value_wins_within_what_works() {
        let paths = [path("192.0.2.1", 1500)];
        assert_eq!(pod_path_mtu(Some(1400), &paths, None, &[]), 1400);
        assert_eq!(pod_path_mtu(Some(100), &paths, None, &[]), 1280);
        assert_eq!(pod_path_mtu(None, &[], Some(65_536), &[]), LOCAL_MTU);
    }
}
