use weft_agent::host::{HostError, sysctl};

use crate::namespace::{enter, run, set, setting};

fn apply(underlay: &[&str]) -> Vec<HostError> {
    let underlay: Vec<String> = underlay.iter().map(ToString::to_string).collect();
    let results = sysctl::apply(&underlay);
    results.into_iter().filter_map(Result::err).collect()
}

#[test]
fn node_forwards_and_still_hears_router_advertisements() {
    enter();
    run("ip link add u0 type veth peer name u1");
    run("ip link add u0.7 link u0 type vlan id 7");
    run("ip link set u0 up");
    run("ip link set u1 up");
    set("ipv6/conf/u1/accept_ra", "0");
    // As a router advertisement would leave it: forwarding must not purge it.
    assert!(apply(&["u0", "u0.7", "u1"]).is_empty());
    assert_eq!(setting("ipv4/ip_forward"), "1");
    assert_eq!(setting("ipv6/conf/all/forwarding"), "1");
    assert_eq!(setting("ipv6/conf/u0/accept_ra"), "2");
    assert_eq!(setting("ipv6/conf/u0.7/accept_ra"), "2");
    assert_eq!(
        setting("ipv6/conf/u1/accept_ra"),
        "0",
        "somebody else's business"
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
