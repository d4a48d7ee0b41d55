//! An uplink that is one end of a virtual wire (veth), as between nodes that are containers.
//!
//! What the other end sends is received inside its call: each packet's way through this node is added to its sender's
//! time, on the sender's core. A thread that receives for the uplink (threaded NAPI) works beside the sender instead.
//! But it may fall behind, and the wire holds 256 packets and drops what is more, unless the sender's end has a queue:
//! then that one waits (`veth_xmit`, drivers/net/veth.c). A veth has none by itself, so its uplink gets one.
//!
//! Both are for Linux 6.18 and later: before 6.16 a full wire drops behind a queue as well, and until 6.18 a queue could
//! be left waiting for ever.

use std::io;

use crate::{interface, kernel, sysfs};

/// First version of Linux whose veth waits, and goes on, reliably.
const SINCE: (u32, u32) = (6, 18);

/// What was changed at an uplink. Dropping it changes that back.
#[derive(Debug)]
pub struct VirtualWire {
    ifname: String,
    ifindex: u32,
    /// Switched on here, not by somebody else before.
    threaded: bool,
}

impl VirtualWire {
    /// Prepares an uplink that receives by XDP already. None when it is no virtual wire or the kernel is too old. What
    /// cannot be had is logged: the uplink works without.
    pub fn prepare(ifname: &str, ifindex: u32) -> Option<Self> {
        if !kernel::is_since(SINCE) || !weft_ethtool::is_veth(ifname).unwrap_or(false) {
            return None;
        }
        if let Err(error) = add_queue(ifindex) {
            // Without a queue a thread would lose what it is too slow for.
            tracing::warn!(%error, ifname, "no queue for a virtual uplink");
            return None;
        }
        let threaded = switch_thread(ifname, true).unwrap_or_else(|error| {
            tracing::warn!(%error, ifname, "no thread receives for a virtual uplink");
            false
        });
        tracing::debug!(ifname, threaded, "a virtual uplink has a queue");
        Some(Self {
            ifname: ifname.to_owned(),
            ifindex,
            threaded,
        })
    }
}

impl Drop for VirtualWire {
    fn drop(&mut self) {
        if self.threaded
            && let Err(error) = switch_thread(&self.ifname, false)
        {
            tracing::debug!(%error, ifname = self.ifname, "its thread stays");
        }
        if let Err(error) = remove_queue(self.ifindex) {
            tracing::debug!(%error, ifname = self.ifname, "its queue stays");
        }
    }
}

/// Makes a thread receive for the interface, or its sender again. True when that is a change.
fn switch_thread(ifname: &str, on: bool) -> io::Result<bool> {
    let wanted = if on { "1" } else { "0" };
    let switch = sysfs::setting(&format!("class/net/{ifname}/threaded"))?;
    if sysfs::read(&switch)? == wanted {
        return Ok(false);
    }
    sysfs::write(&switch, wanted)?;
    Ok(true)
}

/// `major:minor` of our queue: tells it from anybody else's.
const OURS: u32 = 0x7766 << 16;
/// What a card gets by default. As long as the interface's `txqueuelen`.
const DISCIPLINE: &[u8] = b"pfifo_fast\0";
/// `TC_H_ROOT`, linux/pkt_sched.h.
const ROOT: u32 = u32::MAX;
/// `TCA_KIND`, linux/rtnetlink.h.
const KIND: u16 = 1;

/// Gives an interface without a queue one.
fn add_queue(ifindex: u32) -> io::Result<()> {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    match change_queue(libc::RTM_NEWQDISC, flags, ifindex) {
        // Somebody's, or ours of another life.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

fn remove_queue(ifindex: u32) -> io::Result<()> {
    change_queue(libc::RTM_DELQDISC, 0, ifindex)
}

fn change_queue(kind: u16, flags: i32, ifindex: u32) -> io::Result<()> {
    interface::acknowledged(&interface::ask(&queue_request(kind, flags, ifindex))?)
}

/// `struct nlmsghdr`, `struct tcmsg` and one attribute (linux/netlink.h, linux/rtnetlink.h).
fn queue_request(kind: u16, flags: i32, ifindex: u32) -> Vec<u8> {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
    let mut rest = Vec::with_capacity(64);
    rest.extend(kind.to_ne_bytes());
    rest.extend(flags.to_ne_bytes());
    // Sequence number, sender, address family.
    rest.extend([0; 12]);
    for number in [ifindex, OURS, ROOT, 0] {
        rest.extend(number.to_ne_bytes());
    }
    rest.extend((4 + DISCIPLINE.len() as u16).to_ne_bytes());
    rest.extend(KIND.to_ne_bytes());
    rest.extend(DISCIPLINE);
    rest.resize(rest.len().next_multiple_of(4), 0);
    let mut request = (4 + rest.len() as u32).to_ne_bytes().to_vec();
    request.extend(rest);
    request
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::net::if_::if_nametoindex;
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn a_virtual_wire_has_a_queue_and_a_thread_while_it_is_an_uplink() {
        let ifindex = namespace_with_wire();
        let Some(wire) = VirtualWire::prepare("u0", ifindex) else {
            return assert!(!kernel::is_since(SINCE));
        };
        assert!(
            queue().contains("qdisc pfifo_fast 7766: root"),
            "{}",
            queue()
        );
        assert!(!switch_thread("u0", true).unwrap(), "it was on");
        drop(wire);
        assert!(queue().contains("noqueue"), "{}", queue());
        assert!(switch_thread("u0", true).unwrap(), "it was off");
    }

    #[test]
    fn what_others_set_up_stays() {
        let ifindex = namespace_with_wire();
        run("tc qdisc add dev u0 root handle 5: bfifo");
        switch_thread("u0", true).unwrap();
        drop(VirtualWire::prepare("u0", ifindex));
        assert!(queue().contains("qdisc bfifo 5: root"), "{}", queue());
        assert!(!switch_thread("u0", true).unwrap(), "it stayed on");
    }

    #[test]
    fn other_devices_are_left_alone() {
        namespace_with_wire();
        assert!(VirtualWire::prepare("lo", 1).is_none());
        assert!(VirtualWire::prepare("nowhere", 4711).is_none());
    }

    #[test]
    fn refusals_are_told() {
        namespace_with_wire();
        let error = add_queue(4711).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(switch_thread("nowhere", true).is_err());
    }

    fn namespace_with_wire() -> u32 {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
        run("ip link add u0 type veth peer name u1");
        run("ip link set u0 up");
        run("ethtool -K u0 gro on");
        if_nametoindex("u0").unwrap()
    }

    fn run(command: &str) -> String {
        let mut words = command.split(' ');
        let output = Command::new(words.next().unwrap()).args(words).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn queue() -> String {
        run("tc qdisc show dev u0")
    }
}
