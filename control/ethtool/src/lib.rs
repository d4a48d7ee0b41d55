//! Switches an interface's offload features, as `ethtool -K` does.
//!
//! The agent needs it for `weft0` and the CNI plugin for a pod's `eth0`: both hand their packets to
//! AF_XDP sockets, which carry no word about what an offload left undone. Names are the kernel's own
//! (`ethtool -k` shows them without the short aliases), so a feature a kernel does not have is simply
//! not matched. An interface is looked up in the calling thread's network namespace.
//!
//! ```no_run
//! weft_ethtool::set_features("eth0", weft_ethtool::PORT_OFFLOADS)?;
//! # Ok::<(), weft_ethtool::Error>(())
//! ```

use nix::errno::Errno;

mod ioctl;

use ioctl::Device;

/// Features of a veth end whose packets go to an AF_XDP socket: off is whatever the pipeline could neither see nor
/// do itself when it arrives there undone. The checksum of TCP and UDP may be left undone
/// (`tx-checksum-ip-generic`): a field that holds just the pseudo-header's sum is passed on between local stacks and
/// completed towards the wire.
///
/// - `tx-tcp*` stay on: a TCP packet of up to 64 KiB arrives whole, and the pipeline knows the
///   size of its segments from the connection.
/// - `tx-udp-segmentation`, `tx-sctp-segmentation`, `tx-gso-list`: a large packet would arrive
///   without its `gso_size`, which nothing tells.
/// - `tx-checksum-sctp`: the CRC32c would be left blank, and nothing marks it.
/// - `tx-udp_tnl*`, `tx-gre*`, `tx-ipxip*`: a tunnel inside the pod would hand over inner packets
///   that still have to be segmented.
/// - `tx-vlan*`: the tag would travel beside the packet, and the packet look untagged to XDP.
pub const PORT_OFFLOADS: &[(&str, bool)] = &[
    ("tx-tcp*", true),
    ("tx-udp-segmentation", false),
    ("tx-sctp-segmentation", false),
    ("tx-gso-list", false),
    ("tx-checksum-sctp", false),
    ("tx-udp_tnl*", false),
    ("tx-gre*", false),
    ("tx-ipxip*", false),
    ("tx-vlan*", false),
    ("tx-checksum-ip-generic", true),
];

/// What else is off where the kernel hands over single frames only ([`PORT_OFFLOADS`] come first): a pod cuts its own
/// packets then.
pub const SINGLE_FRAME_OFFLOADS: &[(&str, bool)] = &[("tx-tcp*", false)];

/// Why features could not be read or switched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name does not fit the kernel's 15 characters.
    #[error("'{0}' cannot be an interface name")]
    Name(String),
    /// The kernel refused.
    #[error("cannot {action} of interface {ifname}: {source}")]
    Kernel {
        /// The interface.
        ifname: String,
        /// What was being done.
        action: &'static str,
        /// What the kernel said.
        source: Errno,
    },
    /// The driver keeps features in another state than asked for.
    #[error("interface {ifname} does not let these features be switched: {}", features.join(", "))]
    Fixed {
        /// The interface.
        ifname: String,
        /// The features.
        features: Vec<String>,
    },
}

/// One feature of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The kernel's name.
    pub name: String,
    /// In use now.
    pub active: bool,
    /// The driver lets it be switched.
    pub switchable: bool,
}

/// Bits of 32 features, as ETHTOOL_GFEATURES reports them.
#[derive(Clone, Copy)]
struct Block {
    available: u32,
    active: u32,
    never_changed: u32,
}

/// Reads every feature of interface `ifname`.
///
/// # Errors
/// [`Error::Kernel`] when there is no such interface.
pub fn features(ifname: &str) -> Result<Vec<Feature>, Error> {
    let device = Device::open(ifname)?;
    let names = device.feature_names()?;
    let blocks = device.feature_blocks(names.len())?;
    Ok(describe(&names, &blocks))
}

/// Whether what the stack sends by interface `ifname` is complete where the next program sees it: the device is
/// plugged into a bus, none that software made, or leaves checksums to nobody.
///
/// # Errors
/// As [`features`].
pub fn completes_checksums(ifname: &str) -> Result<bool, Error> {
    if !Device::open(ifname)?.bus()?.is_empty() {
        return Ok(true);
    }
    let leaves = |feature: &Feature| feature.active && feature.name.starts_with("tx-checksum-ip");
    Ok(!features(ifname)?.iter().any(leaves))
}

/// Whether interface `ifname` is an end of a virtual wire (veth(4)).
///
/// # Errors
/// As [`features`].
pub fn is_veth(ifname: &str) -> Result<bool, Error> {
    Ok(Device::open(ifname)?.driver()? == "veth")
}

/// Brings the features named by `wanted` into the state beside each: a name, or a prefix followed by
/// `*`; the last match wins. Features the kernel does not have are ignored, features in the wanted
/// state already are left alone, so repeating a call costs three system calls and changes nothing.
///
/// # Errors
/// [`Error::Fixed`] when a feature stays in the other state, [`Error::Kernel`] when there is no such
/// interface or the caller lacks CAP_NET_ADMIN.
pub fn set_features(ifname: &str, wanted: &[(&str, bool)]) -> Result<(), Error> {
    let device = Device::open(ifname)?;
    let names = device.feature_names()?;
    let now = describe(&names, &device.feature_blocks(names.len())?);
    let mut change = vec![(0_u32, 0_u32); names.len().div_ceil(32)];
    for (bit, feature) in now.iter().enumerate() {
        match state_wanted(&feature.name, wanted) {
            Some(on) if on != feature.active && feature.switchable => {
                let (valid, requested) = &mut change[bit / 32];
                *valid |= 1 << (bit % 32);
                *requested |= u32::from(on) << (bit % 32);
            }
            _ => {}
        }
    }
    if change.iter().any(|(valid, _)| *valid != 0) {
        device.change_features(&change)?;
    }
    let then = describe(&names, &device.feature_blocks(names.len())?);
    let fixed = then
        .into_iter()
        .filter(|f| state_wanted(&f.name, wanted).is_some_and(|on| on != f.active))
        .map(|f| f.name)
        .collect::<Vec<_>>();
    if fixed.is_empty() {
        Ok(())
    } else {
        Err(Error::Fixed {
            ifname: ifname.to_owned(),
            features: fixed,
        })
    }
}

fn state_wanted(name: &str, wanted: &[(&str, bool)]) -> Option<bool> {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    let found = wanted.iter().rev().find(|(pattern, _)| matches(pattern));
    found.map(|(_, on)| *on)
}

fn describe(names: &[String], blocks: &[Block]) -> Vec<Feature> {
    let bit = |word: u32, bit: usize| word >> (bit % 32) & 1 == 1;
    let with_block = names.iter().enumerate().zip(0..blocks.len() * 32);
    with_block
        .map(|((i, name), _)| {
            let block = blocks[i / 32];
            Feature {
                name: name.clone(),
                active: bit(block.active, i),
                switchable: bit(block.available, i) && !bit(block.never_changed, i),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use std::process::Command;

    #[test]
    fn patterns_match_whole_names_or_prefixes_and_the_last_wins() {
        let wanted = [("tx-tcp*", false), ("tx-tcp6-segmentation", true)];
        assert_eq!(state_wanted("tx-tcp-segmentation", &wanted), Some(false));
        assert_eq!(state_wanted("tx-tcp6-segmentation", &wanted), Some(true));
        assert_eq!(state_wanted("rx-gro", &wanted), None);
        assert_eq!(state_wanted("tx-gso", &[("tx-gso-list", false)]), None);
    }

    #[test]
    fn veth_leaves_only_tcp_segmentation_and_checksums_to_us() {
        in_namespace_with_veth();
        set_features("veth0", PORT_OFFLOADS).unwrap();
        set_features("veth0", PORT_OFFLOADS).unwrap();
        let shown = ethtool_k("veth0");
        for off in [
            "tx-udp-segmentation",
            "tx-sctp-segmentation",
            "tx-checksum-sctp",
            "tx-gso-list",
            "tx-udp_tnl-segmentation",
            "tx-udp_tnl-csum-segmentation",
            "tx-gre-segmentation",
            "tx-ipxip4-segmentation",
            "tx-ipxip6-segmentation",
            "tx-vlan-offload",
        ] {
            assert!(shown.contains(&format!("{off}: off")), "{off}\n{shown}");
        }
        for on in [
            "tx-tcp-segmentation: on",
            "tx-tcp6-segmentation: on",
            "tx-checksum-ip-generic: on",
            "tx-scatter-gather: on",
        ] {
            assert!(shown.contains(on), "{on}\n{shown}");
        }
        let other = ethtool_k("veth1");
        assert!(other.contains("tx-udp-segmentation: on"), "{other}");
    }

    #[test]
    fn features_are_read_as_ethtool_shows_them() {
        in_namespace_with_veth();
        let shown = ethtool_k("veth0");
        let read = features("veth0").unwrap();
        assert!(read.len() > 40);
        let mut compared = 0;
        for feature in read {
            let state = if feature.active { "on" } else { "off" };
            let fixed = if feature.switchable { "" } else { " [fixed]" };
            let prefix = format!("{}:", feature.name);
            if let Some(line) = shown.lines().find(|l| l.trim().starts_with(&prefix)) {
                let line = line.trim().replace(" [requested on]", "");
                assert_eq!(line, format!("{prefix} {state}{fixed}"));
                compared += 1;
            }
        }
        assert!(compared > 20, "{compared}");
    }

    #[test]
    fn checksums_are_complete_where_a_device_leaves_none() {
        in_namespace_with_veth();
        assert!(!completes_checksums("veth0").unwrap());
        set_features("veth0", &[("tx-checksum-ip-generic", false)]).unwrap();
        assert!(completes_checksums("veth0").unwrap());
        assert!(completes_checksums("nowhere").is_err());
    }

    #[test]
    fn a_virtual_wire_is_told_from_other_devices() {
        in_namespace_with_veth();
        assert!(is_veth("veth0").unwrap());
        assert!(!is_veth("lo").unwrap());
        assert!(is_veth("nowhere").is_err());
    }

    #[test]
    fn fixed_features_and_absent_interfaces_are_named() {
        in_namespace_with_veth();
        let error = set_features("lo", &[("loopback", false)]).unwrap_err();
        assert!(
            matches!(&error, Error::Fixed { features, .. } if features == &["loopback"]),
            "{error}"
        );
        let error = set_features("nowhere", PORT_OFFLOADS).unwrap_err();
        assert!(error.to_string().contains("nowhere"), "{error}");
        assert!(matches!(
            features("a-name-far-too-long"),
            Err(Error::Name(_))
        ));
    }

    fn in_namespace_with_veth() {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
        let add = [
            "link", "add", "veth0", "type", "veth", "peer", "name", "veth1",
        ];
        let status = Command::new("ip").args(add).status().expect("ip runs");
        assert!(status.success());
    }

    fn ethtool_k(ifname: &str) -> String {
        let output = Command::new("ethtool").args(["-k", ifname]).output();
        String::from_utf8(output.expect("ethtool runs").stdout).expect("text")
    }
}
