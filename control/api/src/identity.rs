//! Names of pods and ports.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A pod, by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodRef {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name within it.
    pub name: String,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Name of an attached port: the host end's interface name, unique on a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PortName(pub String);

impl PortName {
    /// The host end's name of one attachment: `weft` and 11 base-32 digits of a 64-bit FNV-1a hash
    /// over network, container and interface name, so that it fits the kernel's 15 characters.
    pub fn of_attachment(network: &str, container_id: &str, ifname: &str) -> Self {
        const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for part in [network, container_id, ifname] {
            for byte in part.bytes().chain([0]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        let digits = (0..11).map(|i| DIGITS[(hash >> (5 * i)) as usize & 31] as char);
        Self("weft".chars().chain(digits).collect())
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachment_names_fit_the_kernel_and_depend_on_every_part() {
        let base = PortName::of_attachment("weft", "abc", "eth0");
        assert_eq!(base.0.len(), 15);
        assert_eq!(base, PortName::of_attachment("weft", "abc", "eth0"));
        for (n, c, i) in [
            ("weft2", "abc", "eth0"),
            ("weft", "abd", "eth0"),
            ("weft", "abc", "eth1"),
            ("weftabc", "", "eth0"),
        ] {
            assert_ne!(base, PortName::of_attachment(n, c, i));
        }
    }
}
