use std::net::SocketAddrV6;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, setsockopt,
    socket, sockopt,
};
use weft_agent::host::{HostError, sysctl};

use crate::namespace::{Namespace, enter, run, set, setting};

fn apply(underlay: &[&str]) -> Vec<HostError> {
    let underlay: Vec<String> = underlay.iter().map(ToString::to_string).collect();
    let results = sysctl::apply(&underlay);
    results.into_iter().filter_map(Result::err).collect()
}

#[test]
fn node_forwards_and_still_hears_router_advertisements() {
    enter();
    run("ip link add u0 type veth peer name u1");
    run("ip link set u0 up");
    run("ip link set u1 name u1.7 up");
    set("ipv6/conf/u0/accept_ra", "0");
    assert!(apply(&["u0", "u1.7"]).is_empty());
    assert_eq!(setting("ipv4/ip_forward"), "1");
    assert_eq!(setting("ipv6/conf/all/forwarding"), "1");
    assert_eq!(setting("ipv6/conf/u1.7/accept_ra"), "2");
    assert_eq!(
        setting("ipv6/conf/u0/accept_ra"),
        "0",
        "somebody else's business"
    );
}

/// Fails when forwarding is switched on before `accept_ra` is 2.
#[test]
fn a_default_route_learned_from_a_router_survives() {
    enter();
    let router = Namespace::new();
    router.wire("u0", "r0");
    let default = || run("ip -6 route show default");
    let end = Instant::now() + Duration::from_secs(10);
    while !default().contains("proto ra") {
        assert!(Instant::now() < end, "no route learned: {}", default());
        router.within(advertise);
        thread::sleep(Duration::from_millis(100));
    }
    assert!(apply(&["u0"]).is_empty());
    assert!(default().contains("proto ra"), "{}", default());
}

/// Sends a router advertisement (RFC 4861, section 4.2) to all nodes, as soon as the link-local
/// address it must come from is usable.
fn advertise() {
    let kind = (AddressFamily::Inet6, SockType::Raw, SockProtocol::IcmpV6);
    let raw = socket(kind.0, kind.1, SockFlag::SOCK_CLOEXEC, kind.2).unwrap();
    setsockopt(&raw, sockopt::Ipv6MulticastHops, &255).unwrap();
    let index = nix::net::if_::if_nametoindex("r0").unwrap();
    let all_nodes = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, index);
    let lifetime_s = 1800_u16.to_be_bytes();
    let mut packet = [0; 16];
    packet[0] = 134;
    packet[4] = 64;
    packet[6..8].copy_from_slice(&lifetime_s);
    // The kernel fills in the checksum; while the address is tentative it refuses.
    let _ = sendto(
        raw.as_raw_fd(),
        &packet,
        &SockaddrIn6::from(all_nodes),
        MsgFlags::empty(),
    );
}

#[test]
fn host_ends_stay_closed_when_forwarding_is_switched_on() {
    enter();
    run("ip link add weftabcdefghijk type veth peer name eth0");
    run("ip link add other type veth peer name other1");
    set("ipv4/conf/weftabcdefghijk/forwarding", "0");
    set("ipv4/conf/other/forwarding", "0");
    assert!(apply(&[]).is_empty());
    assert_eq!(setting("ipv4/conf/weftabcdefghijk/forwarding"), "0");
    assert_eq!(setting("ipv6/conf/weftabcdefghijk/disable_ipv6"), "1");
    assert_eq!(setting("ipv4/conf/other/forwarding"), "1");
    assert!(!sysctl::is_open("weftabcdefghijk"));
    assert!(sysctl::is_open("other"));
}

#[test]
fn read_only_settings_are_an_error_that_says_what_to_do_unless_they_are_right() {
    enter();
    run("mount --bind /proc/sys /proc/sys");
    run("mount -o remount,bind,ro /proc/sys");
    let errors = apply(&[]);
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        matches!(errors[0], HostError::SettingsReadOnly { .. }),
        "{errors:?}"
    );
    assert!(
        errors[0]
            .to_string()
            .contains("sysctl -w net.ipv4.ip_forward=1")
    );

    run("mount -o remount,bind,rw /proc/sys");
    set("ipv4/ip_forward", "1");
    set("ipv6/conf/all/forwarding", "1");
    run("mount -o remount,bind,ro /proc/sys");
    assert!(apply(&[]).is_empty());
}
