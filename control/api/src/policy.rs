//! Policy as the dataplane gets it: who an address is, and what each endpoint's rules say.
//!
//! The agent compiles all kinds of policy objects to one form. An address belongs to an
//! [`Identity`]; an identity is matched by selectors, known here by number only; an endpoint's
//! [`EndpointPolicy`] is two lists of rules over selectors, protocols and ports. A change of one
//! pod's labels is then one small object, however many policies there are.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::identity::PodRef;

/// Identity of every address no [`PolicyAddress`] covers: no selector matches it.
pub const IDENTITY_WORLD: u32 = 0;

/// What policies can tell apart: pods of one namespace with the same labels, one address block, a
/// node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number, never 0. A number keeps its meaning as long as the agent lives.
    pub id: u32,
    /// For people: `shop app=web,tier=front`, `192.0.2.0/24`, `node worker-1`.
    pub name: String,
    /// Numbers of the selectors that match it, ascending.
    pub selectors: Vec<u32>,
}

/// Whose an address is. Of several prefixes that contain an address the longest counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyAddress {
    /// One address of a pod or node, or a block that some policy names.
    pub prefix: IpNet,
    /// Its [`Identity`].
    pub identity: u32,
    /// The pod that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
}

/// Rules of every local pod of one identity. A local pod whose identity has none is cut off: the
/// agent sends one for each, also when nothing selects it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointPolicy {
    /// The pods' [`Identity`].
    pub identity: u32,
    /// Rules for connections towards the pod; peers are sources.
    pub ingress: Vec<PolicyRule>,
    /// Rules for connections the pod opens; peers are destinations.
    pub egress: Vec<PolicyRule>,
}

/// One rule. Rules are tried in order and the first that matches decides; without one the
/// connection is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PolicyRule {
    /// Rules of one tier stand together, and tiers ascend. [`RuleVerdict::Pass`] leaves the tier.
    pub tier: u8,
    /// The peer must be matched by this selector; any peer where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<u32>,
    /// IP protocol number; any where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// Destination ports; any where absent. Only together with a protocol that has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortRange>,
    /// What it says.
    pub verdict: RuleVerdict,
    /// Where it comes from, for people.
    pub origin: RuleOrigin,
}

/// Destination ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleVerdict {
    /// The connection may be.
    Allow,
    /// It may not.
    Deny,
    /// The rest of this tier is skipped.
    Pass,
}

/// Where a rule stands, so that a verdict can name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleOrigin {
    /// Kind and name: `NetworkPolicy shop/web`. Several objects, comma-separated, where together
    /// they isolate a pod.
    pub object: String,
    /// The place in it: `ingress[0]`, or `isolates ingress` where it selects the pod and none of
    /// its rules took the connection.
    pub rule: String,
}
