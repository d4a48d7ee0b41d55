//! Which connections may be: identities of addresses, and for each identity of local pods who may connect.
//!
//! An address has an identity, found by its longest prefix. Each local endpoint's identity has, for each
//! direction, a map from the peer's identity to a table of ports; peers that no rule names share one. A
//! question is then two lookups of addresses, one of a page and one binary search, however many policies
//! there are. Versions share everything but what a change touched.
//!
//! | file | what |
//! |---|---|
//! | `rule.rs` | rules as they are given |
//! | `ports.rs` | protocol and port to decision |
//! | `peers.rs` | peer to its table of ports |
//! | `builder.rs` | makes versions of all this |
//! | `counters.rs` | what was decided how often |
//! | `alter.rs` | wrong entries on purpose, for tests |

#[cfg(any(test, feature = "testing"))]
mod alter;
mod builder;
mod counters;
mod peers;
mod ports;
mod rule;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnet::IpNet;
use weft_wire::Protocol;

use super::lpm::Lpm;

pub use builder::PolicyBuilder;
pub use counters::{PolicyCounters, RULES_COUNTED_MAX};
pub use rule::{Rule, RuleId, RuleVerdict, Traffic};

use peers::PeerMap;

/// What a table of ports says about a connection: allowed or not, and the rule that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decision(u32);

/// Set in a decision that denies.
const DENIED: u32 = 1 << 31;

impl Decision {
    /// What holds where no rule matches.
    pub const DEFAULT: Self = Self(RuleId::NONE.0);

    /// Allowed by `rule`.
    pub const fn allow(rule: RuleId) -> Self {
        Self(rule.0 & !DENIED)
    }

    /// Denied by `rule`.
    pub const fn deny(rule: RuleId) -> Self {
        Self(rule.0 | DENIED)
    }

    /// Whether the connection may be.
    #[inline]
    pub const fn is_allowed(self) -> bool {
        self.0 & DENIED == 0
    }

    /// The rule that decided; [`RuleId::NONE`] where none matched.
    #[inline]
    pub const fn rule(self) -> RuleId {
        RuleId(self.0 & !DENIED)
    }
}

/// Which of an endpoint's two lists of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyDirection {
    /// Connections towards the pod.
    Ingress,
    /// Connections the pod opens.
    Egress,
}

/// Place of an identity in the maps; 0 is whoever no rule can name. Unlike the agent's numbers these are
/// dense, and are given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct IdentityIndex(u32);

impl IdentityIndex {
    const WORLD: Self = Self(0);
}

/// The rules of one identity of local pods.
#[derive(Clone)]
struct Endpoint {
    ingress: PeerMap,
    egress: PeerMap,
}

/// One version of all policies. Cloning copies a few pointers.
#[derive(Clone, Default)]
pub struct PolicyTables {
    epoch: u32,
    v4: Lpm<u32>,
    v6: Lpm<u128>,
    endpoints: Arc<HashMap<u32, Arc<Endpoint>, FixedState>>,
}

impl PolicyTables {
    /// Number of the version; changes only when some decision may. 0 is no version.
    #[inline]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// What the rules of `subject`, an address of a local pod, say about traffic with `peer`. `None` when
    /// there are none for it.
    pub fn decide(
        &self,
        subject: IpAddr,
        direction: PolicyDirection,
        peer: IpAddr,
        traffic: Traffic,
    ) -> Option<Decision> {
        let (subject, peer) = (self.identity(subject), self.identity(peer));
        self.decide_between(subject, direction, peer, traffic)
    }

    /// The same of identities.
    #[inline]
    pub(crate) fn decide_between(
        &self,
        subject: IdentityIndex,
        direction: PolicyDirection,
        peer: IdentityIndex,
        traffic: Traffic,
    ) -> Option<Decision> {
        let endpoint = self.endpoints.get(&subject.0)?;
        let peers = match direction {
            PolicyDirection::Ingress => &endpoint.ingress,
            PolicyDirection::Egress => &endpoint.egress,
        };
        Some(peers.ports(peer).decide(traffic))
    }

    /// Who has an address.
    #[inline]
    pub(crate) fn identity(&self, address: IpAddr) -> IdentityIndex {
        IdentityIndex(match address {
            IpAddr::V4(address) => self.v4.lookup(address.to_bits()),
            IpAddr::V6(address) => self.v6.lookup(address.to_bits()),
        })
    }

    fn insert(&mut self, prefix: IpNet, identity: IdentityIndex) {
        match prefix {
            IpNet::V4(net) => {
                self.v4
                    .insert(net.addr().to_bits(), net.prefix_len(), identity.0);
            }
            IpNet::V6(net) => {
                self.v6
                    .insert(net.addr().to_bits(), net.prefix_len(), identity.0);
            }
        }
    }

    fn remove(&mut self, prefix: IpNet) {
        match prefix {
            IpNet::V4(net) => self.v4.remove(net.addr().to_bits(), net.prefix_len()),
            IpNet::V6(net) => self.v6.remove(net.addr().to_bits(), net.prefix_len()),
        };
    }
}

/// Whether rules can name ports of the protocol.
#[inline]
pub const fn has_ports(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP)
}
