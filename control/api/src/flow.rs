//! Tracked connections as people see them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::explain::{PolicyParty, PolicySide};

/// Connections of an answer unless more are asked for.
pub const FLOWS_SHOWN: u32 = 1_000;

/// Which connections `flow_list` asks for; what is absent does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowQuery {
    /// A pod at one of its ends, as `NAMESPACE/POD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// An address of one of its ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// One of its ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// IP protocol number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// State, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Most connections in the answer; [`FLOWS_SHOWN`] where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Answer to `flow_list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowList {
    /// The connections.
    pub flows: Vec<FlowStatus>,
    /// There are more than were asked for.
    pub truncated: bool,
}

/// What a translated connection is to those who opened and who answer it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowService {
    /// `NAMESPACE/NAME` of the service; absent when it is no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The address it was opened to.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Who it comes from to its backend, where that is not who opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<std::net::SocketAddr>,
}

/// One connection. Pairs count the direction that began it first, then the replies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// Worker that owns it.
    pub worker: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Who began it.
    pub source: PolicyParty,
    /// With whom.
    pub destination: PolicyParty,
    /// Source port; of an ICMP query its identifier.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// State.
    pub state: String,
    /// The other side answered.
    pub replied: bool,
    /// Begun before the dataplane looked.
    pub picked_up: bool,
    /// Packets.
    pub packets: [u64; 2],
    /// Bytes of IP packets.
    pub bytes: [u64; 2],
    /// Milliseconds since the first packet.
    pub age_ms: u64,
    /// Milliseconds since the last packet.
    pub idle_ms: u64,
    /// The service it was opened to, whose backend `destination` is; absent for connections that are not translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<FlowService>,
    /// What the sender's policy says, as of now.
    pub egress: PolicySide,
    /// What the receiver's policy says.
    pub ingress: PolicySide,
}
