//! Policies as people see them: what is in force, what it says about one connection, and what it said of those that
//! came.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::identity::PodRef;
use crate::policy::{PortRange, RuleOrigin, RuleVerdict};

/// Answer to `policy_list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyList {
    /// Every identity that pods of this node have or that has rules here.
    pub endpoints: Vec<PolicyEndpoint>,
}

/// The policy of the node's pods of one identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyEndpoint {
    /// Number of the identity; 0 of pods whose addresses have none.
    pub identity: u32,
    /// Its name.
    pub name: String,
    /// Pods of this node that have it.
    pub pods: Vec<PodRef>,
    /// Their addresses.
    pub addresses: Vec<IpAddr>,
    /// False while its rules have not arrived: its pods are cut off.
    pub known: bool,
    /// Rules for connections towards the pods, in order.
    pub ingress: Vec<RuleStatus>,
    /// Rules for connections the pods open, in order.
    pub egress: Vec<RuleStatus>,
}

/// One rule and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStatus {
    /// Rules of one tier stand together.
    pub tier: u8,
    /// Who the peer must be; any peer where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerStatus>,
    /// IP protocol number; any where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// Destination ports; any where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortRange>,
    /// What it says.
    pub verdict: RuleVerdict,
    /// Where it comes from.
    pub origin: RuleOrigin,
    /// Connections allowed by rules of this origin, on this node since the dataplane started.
    pub allowed: u64,
    /// Packets denied by rules of this origin.
    pub denied: u64,
}

/// Who a rule's selector matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Number of the selector.
    pub selector: u32,
    /// Identities it matches.
    pub identities: u32,
    /// Names of the first of them.
    pub names: Vec<String>,
}

/// What `policy_explain` asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyQuestion {
    /// Who opens the connection: an address, or `NAMESPACE/POD`.
    pub source: String,
    /// With whom, alike.
    pub destination: String,
    /// IP protocol number. ICMP between IPv6 addresses is taken for ICMPv6.
    pub protocol: u8,
    /// Destination port; of protocols without ports it does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// Answer to `policy_explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyExplained {
    /// Who opens the connection.
    pub source: PolicyParty,
    /// With whom.
    pub destination: PolicyParty,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port, 0 where the protocol has none.
    pub port: u16,
    /// What the sender's policy says.
    pub egress: PolicySide,
    /// What the receiver's policy says.
    pub ingress: PolicySide,
    /// False when one of those that this node decides says no.
    pub allowed: bool,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyParty {
    /// Its address.
    pub address: IpAddr,
    /// The pod that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
    /// Its identity; 0 when no policy can name it.
    pub identity: u32,
    /// The identity's name.
    pub name: String,
}

/// What one end's policy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySide {
    /// The outcome.
    pub outcome: PolicyOutcome,
    /// The rule that decided, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<RuleOrigin>,
}

/// How one end's policy decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyOutcome {
    /// The connection may be.
    Allowed,
    /// It may not.
    Denied,
    /// A pod of this node whose rules have not arrived: it is cut off.
    NoPolicy,
    /// A node may always connect to its own pods, and a pod to itself.
    Exempt,
    /// Not decided here: it is no pod of this node. If it is one of another, that one decides.
    Elsewhere,
}

/// Which verdicts `policy_log` streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyLogSpec {
    /// Of connections with this end: `NAMESPACE/POD`, with the addresses it has when the log begins, or an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Only these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<PolicyLogVerdict>,
}

/// Answer to `policy_log`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyLogStarted {}

/// Whether a connection may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyLogVerdict {
    /// It may: told of the packet that begins it.
    Allowed,
    /// It may not: told of every packet that is dropped for it.
    Denied,
}

/// One line of a policy log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum PolicyLogEvent {
    /// A verdict.
    Verdict(Box<PolicyLogEntry>),
    /// More verdicts came than a log shows in a second.
    LeftOut {
        /// How many are not shown.
        count: u64,
    },
}

/// A verdict with names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyLogEntry {
    /// When, in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Whether the connection may be.
    pub verdict: PolicyLogVerdict,
    /// It was allowed before, and policies changed.
    pub revoked: bool,
    /// Who opens the connection.
    pub source: PolicyParty,
    /// From which port; 0 where the protocol has none.
    pub source_port: u16,
    /// With whom.
    pub destination: PolicyParty,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port; 0 where the protocol has none.
    pub port: u16,
    /// What the sender's policy said. Its rule has no name here if policies changed meanwhile.
    pub egress: PolicySide,
    /// What the receiver's policy said.
    pub ingress: PolicySide,
}
