//! The node's own kernel, set up so that its stack and the dataplane meet: the port `weft0`, routes
//! to the cluster's pods and services through it, forwarding, masquerade, and the underlay's ways to
//! other nodes.
//!
//! Everything here states what should be and repairs what differs, so it may run at every start, at
//! every change of the cluster and from time to time: running it twice changes nothing. It works in
//! the network namespace of the thread that opened its sockets.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use weft_api::{MacAddr, NODE_PORT};

mod addresses;
pub mod link;
pub mod masquerade;
pub mod mtu;
mod neighbour;
mod next_hop;
mod nft;
pub mod pod_port;
pub mod routes;
mod run;
pub mod service_access;
pub mod sysctl;
pub mod underlay;
pub mod weft0;

pub use link::Netlink;
pub use run::run;
use service_access::ServiceAccess;

/// Origin of the routes and neighbour entries that are ours (`rt_protocol`), so that stale ones are
/// found again after a restart. 87 is 'W'; `/etc/iproute2/rt_protos` leaves it free, and the kernel
/// gives everything from 4 up to user space.
pub const RT_PROTOCOL: u8 = 87;

/// What the node's kernel should look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSpec {
    /// MAC of `weft0`.
    pub mac: MacAddr,
    /// Addresses of `weft0`: the first usable one of each family of the node's pod prefixes.
    pub addresses: Vec<IpAddr>,
    /// Ranges pods get their addresses from: the cluster's, and every node's own prefixes.
    pub pod_ranges: Vec<IpNet>,
    /// Ranges of service addresses.
    pub service_ranges: Vec<IpNet>,
    /// Addresses of all nodes, this one's included: never masqueraded towards.
    pub node_addresses: Vec<IpAddr>,
    /// Interfaces that hold this node's addresses.
    pub underlay: Vec<String>,
    /// MTU of the pods' paths, in bytes of the IP packet.
    pub path_mtu: u32,
    /// What leads the node's own processes to services that have other addresses too.
    pub service_access: ServiceAccess,
}

/// Why the host could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The kernel refused a netlink request.
    #[error("cannot {action}: {source}")]
    Netlink {
        /// What was being done, to which object.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A kernel setting cannot be written.
    #[error("cannot set {name} to {value}: {source}")]
    Setting {
        /// Its name, as `sysctl` takes it.
        name: String,
        /// What it should be.
        value: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Kernel settings are mounted read-only.
    #[error(
        "cannot set {name} to {value}: /proc/sys is read-only here; run the agent privileged, or \
         set it on the node before the agent starts (sysctl -w {name}={value})"
    )]
    SettingsReadOnly {
        /// Its name, as `sysctl` takes it.
        name: String,
        /// What it should be.
        value: String,
    },
    /// The program `nft` is missing.
    #[error("cannot {what}: the program nft is not installed; install the package nftables")]
    NftMissing {
        /// What it was to do.
        what: &'static str,
    },
    /// `nft` failed.
    #[error("cannot {what}: {said}")]
    Nft {
        /// What it was to do.
        what: &'static str,
        /// What it said.
        said: String,
    },
    /// Offloads of `weft0` cannot be switched.
    #[error(transparent)]
    Features(#[from] weft_ethtool::Error),
    /// Somebody else's object is in the way.
    #[error("{0}")]
    InTheWay(String),
}

/// Brings the kernel to what `spec` says. Every part is tried, whatever became of the others.
///
/// # Errors
/// All that failed, in order.
pub async fn apply(netlink: &Netlink, spec: &HostSpec) -> Result<(), Vec<HostError>> {
    let mut errors = Vec::new();
    let mut note = |result: Result<(), HostError>| errors.extend(result.err());
    for result in sysctl::apply(&spec.underlay) {
        note(result);
    }
    let port = weft0::apply(netlink, spec.mac, &spec.addresses).await;
    match port {
        Ok(index) => {
            for result in routes::apply(netlink, index, spec).await {
                note(result);
            }
        }
        Err(error) => note(Err(error)),
    }
    note(masquerade::apply(&spec.pod_ranges, &spec.node_addresses).await);
    note(service_access::apply(&spec.service_access).await);
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

/// Removes everything [`apply`] made but for kernel settings. Missing objects are success.
///
/// # Errors
/// All that failed, in order.
pub async fn remove(netlink: &Netlink) -> Result<(), Vec<HostError>> {
    let mut errors = Vec::new();
    errors.extend(masquerade::remove().await.err());
    errors.extend(service_access::remove().await.err());
    match netlink.link(NODE_PORT).await {
        Ok(Some(link)) => errors.extend(netlink.delete_link(&link).await.err()),
        Ok(None) => {}
        Err(error) => errors.push(error),
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}
