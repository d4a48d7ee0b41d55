//! Kernel settings of the node's network namespace.
//!
//! A setting that is right already is not written, so a node prepared by its administrator works
//! with a read-only `/proc/sys`, and writing `ip_forward` does not needlessly reset every
//! interface's own switch.

use std::fs;
use std::io;
use std::path::PathBuf;

use weft_api::{NODE_PORT, NODE_PORT_PEER};

use super::HostError;

/// Length of a pod port's name at the host end: `weft` and 11 digits.
const POD_PORT_NAME_BYTES: usize = 15;

/// Forwarding in both families, router advertisements still heard on the underlay, host ends closed.
/// `rp_filter` is left as the administrator has it: pods' packets enter by `weft0`, and the routes
/// to pods leave by it, so strict mode holds.
///
/// Order: `accept_ra` before IPv6 forwarding. Switching forwarding on makes the kernel forget default
/// routes learned from router advertisements on every interface whose `accept_ra` is not 2
/// (`rt6_purge_dflt_routers`, net/ipv6/route.c), and with them the node's way out.
pub fn apply(underlay: &[String]) -> Vec<Result<(), HostError>> {
    let mut results = Vec::new();
    for ifname in underlay {
        results.push(hear_router_advertisements(ifname));
    }
    results.push(set_unless(&["net", "ipv4", "ip_forward"], "1"));
    if has_ipv6() {
        let forwarding = ["net", "ipv6", "conf", "all", "forwarding"];
        results.push(set_unless(&forwarding, "1"));
    }
    results.extend(close_host_ends());
    results
}

/// 1 means "unless forwarding", which we are about to switch on, so it becomes 2. 0 stays: there,
/// something else (systemd-networkd, or static addresses) looks after the interface.
fn hear_router_advertisements(ifname: &str) -> Result<(), HostError> {
    let setting = ["net", "ipv6", "conf", ifname, "accept_ra"];
    match read(&setting) {
        Ok(value) if value == "1" => set_unless(&setting, "2"),
        _ => Ok(()),
    }
}

/// Writing `ip_forward` switches forwarding on for every interface, host ends of pods included;
/// those must stay closed, so that a packet the dataplane does not take is not routed unfiltered.
fn close_host_ends() -> Vec<Result<(), HostError>> {
    let Ok(entries) = fs::read_dir("/proc/sys/net/ipv4/conf") else {
        return Vec::new();
    };
    let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
    let host_end = |name: &String| {
        let pod_port = name.starts_with("weft") && name.len() == POD_PORT_NAME_BYTES;
        name == NODE_PORT_PEER || pod_port
    };
    let close = |name: String| match close_host_end(&name) {
        // It went away meanwhile.
        Err(HostError::Setting { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        result => result,
    };
    names.filter(host_end).map(close).collect()
}

/// Settings of an end that belongs to the dataplane: no IPv6, no forwarding, no answer to ARP.
///
/// # Errors
/// When a setting differs and cannot be written.
pub fn close_host_end(ifname: &str) -> Result<(), HostError> {
    if has_ipv6() {
        set_unless(&["net", "ipv6", "conf", ifname, "disable_ipv6"], "1")?;
        set_unless(&["net", "ipv6", "conf", ifname, "forwarding"], "0")?;
    }
    set_unless(&["net", "ipv4", "conf", ifname, "forwarding"], "0")?;
    // 8: answer for no address at all, not even another interface's (Documentation/networking/
    // ip-sysctl.rst, arp_ignore).
    set_unless(&["net", "ipv4", "conf", ifname, "arp_ignore"], "8")
}

/// Whether the kernel would route what arrives at a host end.
pub fn is_open(ifname: &str) -> bool {
    let on = |family: &str| {
        let setting = ["net", family, "conf", ifname, "forwarding"];
        read(&setting).is_ok_and(|value| value != "0")
    };
    let ipv6_off = ["net", "ipv6", "conf", ifname, "disable_ipv6"];
    on("ipv4") || (on("ipv6") && read(&ipv6_off).is_ok_and(|value| value == "0"))
}

/// Settings of `weft0`: it forwards; its IPv6 has no link-local address, as its one neighbour is
/// permanent, and neither solicits nor believes routers, of which the pipeline is none.
///
/// # Errors
/// When a setting differs and cannot be written.
pub fn open_node_port(ifname: &str) -> Result<(), HostError> {
    set_unless(&["net", "ipv4", "conf", ifname, "forwarding"], "1")?;
    set_unless(&["net", "ipv4", "conf", ifname, "accept_redirects"], "0")?;
    set_unless(&["net", "ipv4", "conf", ifname, "send_redirects"], "0")?;
    if has_ipv6() {
        let settings = [
            ("disable_ipv6", "0"),
            ("forwarding", "1"),
            ("addr_gen_mode", "1"),
            ("accept_ra", "0"),
            ("accept_redirects", "0"),
        ];
        for (setting, value) in settings {
            set_unless(&["net", "ipv6", "conf", ifname, setting], value)?;
        }
    }
    Ok(())
}

/// False on a kernel booted with `ipv6.disable=1`, where there is nothing to set.
pub fn has_ipv6() -> bool {
    path(&["net", "ipv6", "conf", "all"]).exists()
}

fn path(setting: &[&str]) -> PathBuf {
    let mut path = PathBuf::from("/proc/sys");
    path.extend(setting);
    path
}

fn read(setting: &[&str]) -> io::Result<String> {
    Ok(fs::read_to_string(path(setting))?.trim().to_owned())
}

/// Writes a setting unless it has the value. Settings are given in parts, because interface names
/// may hold dots.
fn set_unless(setting: &[&str], value: &str) -> Result<(), HostError> {
    if read(setting).is_ok_and(|now| now == value) {
        return Ok(());
    }
    let name = || setting.join(".");
    fs::write(path(setting), value).map_err(|source| match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => HostError::SettingsReadOnly {
            name: name(),
            value: value.to_owned(),
        },
        _ => HostError::Setting {
            name: name(),
            value: value.to_owned(),
            source,
        },
    })
}

/// True for interfaces the agent or the CNI plugin made; what happens to them is no news from the
/// underlay.
pub(super) fn is_own_interface(name: &str) -> bool {
    let pod_port = name.starts_with("weft") && name.len() == POD_PORT_NAME_BYTES;
    pod_port || name == NODE_PORT || name == NODE_PORT_PEER
}
