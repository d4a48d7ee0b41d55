//! Programs on real devices: modes, detaching, pins.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails fails its test"
)]

mod common;

use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use weft_xdp_progs::{Error, PIN_NAMES, Program, Programs, XdpMode, detach_pinned, device};

/// In a mount namespace of this thread's own.
fn mount_bpffs() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).unwrap();
    let flags = MsFlags::empty();
    mount(Some("bpffs"), "/sys/fs/bpf", Some("bpf"), flags, none).unwrap();
}

/// The `prog/xdp` word of `ip link`: `xdp` (native), `xdpgeneric` or nothing.
fn mode_on(ifname: &str) -> Option<&'static str> {
    let output = Command::new("ip")
        .args(["link", "show", ifname])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    ["xdpgeneric", "xdp"]
        .into_iter()
        .find(|mode| words.contains(mode))
}

#[test]
fn the_mode_asked_for_is_the_mode_in_use_and_dropping_the_link_detaches() {
    common::enter_namespace();
    let ifindex = common::veth();
    let programs = Programs::load().unwrap();
    for program in [Program::Pod, Program::Uplink] {
        for (mode, word) in [(XdpMode::Generic, "xdpgeneric"), (XdpMode::Native, "xdp")] {
            let link = programs.attach(ifindex, program, mode).unwrap();
            assert_eq!((link.mode(), link.ifindex()), (mode, ifindex));
            assert_eq!(mode_on("up0"), Some(word));
            drop(link);
            assert_eq!(mode_on("up0"), None);
        }
    }
}

#[test]
fn native_is_preferred_and_generic_is_the_fallback() {
    common::enter_namespace();
    let veth = common::veth();
    let programs = Programs::load().unwrap();
    let native = programs.attach_best(veth, Program::Uplink).unwrap();
    assert_eq!(native.mode(), XdpMode::Native);
    let loopback = common::index("lo");
    let generic = programs.attach_best(loopback, Program::Uplink).unwrap();
    assert_eq!(generic.mode(), XdpMode::Generic);
}

#[test]
fn generic_mode_attaches_to_a_veth_of_full_mtu() {
    common::enter_namespace();
    let ifindex = common::veth();
    common::ip("link set up0 mtu 65535");
    common::ip("link set up1 mtu 65535");
    let programs = Programs::load().unwrap();
    programs
        .attach(ifindex, Program::Pod, XdpMode::Generic)
        .unwrap();
}

#[test]
fn a_device_that_carries_a_program_is_busy_and_keeps_it() {
    common::enter_namespace();
    let ifindex = common::veth();
    let programs = Programs::load().unwrap();
    let other = Programs::load().unwrap();
    let _link = other
        .attach(ifindex, Program::Pod, XdpMode::Generic)
        .unwrap();
    let error = programs.attach_best(ifindex, Program::Uplink).unwrap_err();
    assert!(error.is_busy(), "{error}");
    assert_eq!(mode_on("up0"), Some("xdpgeneric"));
}

#[test]
fn a_device_that_does_not_exist_is_an_error() {
    common::enter_namespace();
    let programs = Programs::load().unwrap();
    let error = programs.attach_best(4242, Program::Pod).unwrap_err();
    assert!(
        matches!(&error, Error::Attach { ifindex: 4242, .. }),
        "{error}"
    );
    assert!(!error.is_busy());
}

#[test]
fn a_pinned_link_outlives_its_holder_until_the_pin_is_removed() {
    common::enter_namespace();
    mount_bpffs();
    let directory = Path::new("/sys/fs/bpf");

    let ifindex = common::veth();
    let programs = Programs::load().unwrap();
    let link = programs
        .attach(ifindex, Program::Pod, XdpMode::Generic)
        .unwrap();
    link.pin(&directory.join("link")).unwrap();
    programs.pin(directory).unwrap();
    assert!(programs.pin(directory).is_err(), "a pin is never replaced");
    for name in PIN_NAMES {
        assert!(directory.join(name).exists());
    }
    drop(link);
    drop(programs);
    assert_eq!(mode_on("up0"), Some("xdpgeneric"));
    detach_pinned(&directory.join("link")).unwrap();
    assert_eq!(mode_on("up0"), None);
    detach_pinned(&directory.join("link")).expect("a detached link is success");
    assert!(detach_pinned(&directory.join("nothere")).is_err());
}

#[test]
fn detaching_is_immediate_though_a_pin_was_removed_just_before() {
    common::enter_namespace();
    mount_bpffs();
    let ifindex = common::veth();
    let programs = Programs::load().unwrap();
    let pin = Path::new("/sys/fs/bpf/link");
    for _ in 0..20 {
        let link = programs
            .attach(ifindex, Program::Pod, XdpMode::Generic)
            .unwrap();
        link.pin(pin).unwrap();
        std::fs::remove_file(pin).unwrap();
        link.detach().unwrap();
    }
}

#[test]
fn detaching_from_a_device_that_vanished_is_success() {
    common::enter_namespace();
    let ifindex = common::veth();
    let programs = Programs::load().unwrap();
    let link = programs
        .attach(ifindex, Program::Pod, XdpMode::Generic)
        .unwrap();
    common::ip("link del up0");
    link.detach().unwrap();
}

#[test]
fn receive_queues_are_those_in_use() {
    common::enter_namespace();
    common::veth();
    common::ip("link add one0 type veth peer name one1");
    assert_eq!(device::receive_queues("up0").unwrap(), Some(4));
    assert_eq!(device::receive_queues("one0").unwrap(), Some(1));
    assert_eq!(device::receive_queues("lo").unwrap(), None);
    for absent in ["nothere", "", "a-name-that-is-too-long", "nul\0"] {
        let error = device::receive_queues(absent).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{absent}");
    }
}
