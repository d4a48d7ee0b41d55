//! A private network namespace and packets for it.

use std::process::Command;

/// Moves this test's thread into a network namespace of its own, which ends with the thread.
pub fn enter_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("these tests run as root");
}

/// A veth with four queues on each side; returns the interface index of `up0`.
pub fn veth() -> u32 {
    ip(
        "link add up0 numrxqueues 4 numtxqueues 4 type veth peer name up1 numrxqueues 4 numtxqueues 4",
    );
    ip("link set up0 up");
    ip("link set up1 up");
    index("up0")
}

pub fn index(ifname: &str) -> u32 {
    nix::net::if_::if_nametoindex(ifname).expect(ifname)
}

pub fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}");
}
