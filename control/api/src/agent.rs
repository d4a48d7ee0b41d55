//! Messages of `agent.sock`: what the CNI plugin and the `weft` command ask the agent.
//!
//! ADD takes two calls on one connection: `prepare` allocates and plans, the plugin then does the
//! work inside the pod's namespace, `attach` makes the port live. A connection that closes between
//! the two has its allocation released.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::dataplane::Done;
use crate::identity::{PodRef, PortName};
use crate::mac::MacAddr;

/// What can be asked of the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Plans an attachment: answers [`Plan`].
    Prepare(Prepare),
    /// The veth is there and configured: attaches the port and answers [`Done`] once it is live.
    Attach {
        /// The attachment.
        attachment: Attachment,
    },
    /// Detaches the port and releases the addresses; unknown is success. Answers [`Done`].
    Release {
        /// The attachment.
        attachment: Attachment,
    },
    /// Compares the attachment with what the agent and the dataplane know: answers [`Checked`].
    Check {
        /// The attachment.
        attachment: Attachment,
    },
    /// Releases every attachment of `network` that is not listed: answers [`Collected`].
    Collect {
        /// Network name.
        network: String,
        /// What the runtime still knows.
        valid: Vec<Attachment>,
    },
    /// Ready for ADD? Answers [`Ready`].
    Ready,
    /// The agent's state for people: answers [`AgentStatus`].
    Status,
}

/// One attachment of a container to a network.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    /// Network name.
    pub network: String,
    /// The runtime's container id.
    pub container_id: String,
    /// Interface name in the pod.
    pub ifname: String,
}

impl Attachment {
    /// The host end's name.
    pub fn port_name(&self) -> PortName {
        PortName::of_attachment(&self.network, &self.container_id, &self.ifname)
    }
}

/// What `prepare` needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// The attachment.
    pub attachment: Attachment,
    /// The pod from `CNI_ARGS`; none outside Kubernetes.
    pub pod: Option<PodRef>,
    /// Addresses a delegated IPAM plugin gave; empty: the agent allocates from the node's pod CIDRs.
    pub delegated: Vec<IpNet>,
    /// `mtu` of the network configuration.
    pub mtu: Option<u32>,
    /// Path of the pod's network namespace (`CNI_NETNS`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// Ports of the node that lead to the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
}

/// A port of the node that leads to one of a pod's (`portMappings` of the CNI).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// IP protocol number: TCP, UDP or SCTP.
    pub protocol: u8,
    /// The node's port.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
    /// The node's address it is at; an unspecified one: all of its IP version; none: all.
    pub host_ip: Option<IpAddr>,
}

impl HostPort {
    /// Whether it leads to addresses of this IP version.
    pub fn is_for(&self, ipv6: bool) -> bool {
        self.host_ip.is_none_or(|address| address.is_ipv6() == ipv6)
    }

    /// Whether a packet could be meant for either.
    pub fn is_in_the_way_of(&self, other: &Self) -> bool {
        let addresses = match (self.host_ip, other.host_ip) {
            (Some(one), Some(other)) => {
                let any = one.is_unspecified() || other.is_unspecified();
                one == other || (any && one.is_ipv6() == other.is_ipv6())
            }
            _ => true,
        };
        addresses && (self.protocol, self.host_port) == (other.protocol, other.host_port)
    }
}

/// How to set the pod up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the host end.
    pub port: PortName,
    /// MAC of the pod's end.
    pub mac: MacAddr,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// MTU of the default routes: the real path, in bytes.
    pub path_mtu: u32,
    /// MTU of the TCP-only routes, in bytes.
    pub local_mtu: u32,
    /// MTU of both veth ends, in bytes.
    pub veth_mtu: u32,
}

/// Answer to `check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Addresses the agent gave this attachment.
    pub addresses: Vec<IpAddr>,
    /// MAC of the pod's end.
    pub mac: Option<MacAddr>,
    /// What is wrong, a sentence each; empty: all well.
    pub problems: Vec<String>,
}

/// Answer to `collect`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// What was released.
    pub released: Vec<Attachment>,
    /// What could not be, a sentence each.
    pub problems: Vec<String>,
}

/// Answer to `ready`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Why not, a sentence each; empty: ready.
    pub problems: Vec<String>,
}

/// Answer to `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Node name.
    pub node: String,
    /// Generation last committed to the dataplane.
    pub generation: u64,
    /// True while the dataplane answers.
    pub dataplane: bool,
    /// Attachments, by port name.
    pub attachments: Vec<AttachmentStatus>,
    /// Free and used addresses per prefix.
    pub pools: Vec<PoolStatus>,
    /// Services in force on this node.
    #[serde(default)]
    pub services: usize,
    /// Manifests that are broken: object or file, line and reason.
    pub problems: Vec<String>,
}

/// One attachment as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentStatus {
    /// The attachment.
    pub attachment: Attachment,
    /// Port name.
    pub port: PortName,
    /// The pod, where known.
    pub pod: Option<PodRef>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The port is live.
    pub live: bool,
}

/// One pool of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// The prefix.
    pub prefix: IpNet,
    /// Addresses in use.
    pub used: u64,
    /// Released addresses that cool down.
    pub cooling: u64,
    /// Addresses that can be given now; saturates at 2^64-1.
    pub free: u64,
}

/// An answer that holds nothing.
pub type Empty = Done;
