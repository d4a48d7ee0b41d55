//! A policy of any kind, read: whom it applies to and what it says, in the order it says it.

use weft_api::policy::{PortRange, RuleVerdict};

use super::selector::{PodQuery, Selector};
use crate::facts::BadValue;

/// IP protocol numbers (IANA) of what policies name.
pub(super) mod protocol {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
    pub const SCTP: u8 = 132;
}

/// Which way a connection goes, as the pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

/// Something of both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Both<T> {
    pub ingress: T,
    pub egress: T,
}

/// Where a policy stands among others. Tiers are tried in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Tier {
    /// ClusterNetworkPolicy of the Admin tier.
    Admin,
    /// Security groups.
    Groups,
    /// NetworkPolicy.
    Network,
    /// ClusterNetworkPolicy of the Baseline tier.
    Baseline,
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// Kind and name, for people.
    pub object: String,
    /// The pods it applies to. Security groups have none; their pods are known otherwise.
    pub subject: Option<PodQuery>,
    pub tier: Tier,
    /// Within the tier; the lower goes first.
    pub priority: i64,
    /// Whether what none of its rules takes is denied.
    pub isolates: Both<bool>,
    /// Its rules, taken apart: one peer and one kind of traffic each.
    pub clauses: Both<Vec<Clause>>,
    /// What is wrong with it. Where there is something, the rest fails closed.
    pub faults: Vec<Fault>,
}

/// One peer and one kind of traffic of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clause {
    /// Any peer where absent.
    pub peer: Option<Selector>,
    pub traffic: Traffic,
    pub verdict: RuleVerdict,
    /// The rule's place in the object.
    pub place: String,
}

/// Traffic a rule speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    /// All of it, whatever the protocol.
    Any,
    /// A protocol.
    Protocol(u8),
    /// Destination ports of a protocol.
    Ports(u8, PortRange),
    /// The destination port the destination pod calls so.
    Named(u8, String),
}

/// Something wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub bad: BadValue,
    /// What follows from it, for people.
    pub consequence: &'static str,
    /// The object itself is wrong. False for what weft cannot do, or what other objects lack.
    pub broken: bool,
}

impl<T> Both<T> {
    pub fn get(&self, direction: Direction) -> &T {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    pub fn get_mut(&mut self, direction: Direction) -> &mut T {
        match direction {
            Direction::Ingress => &mut self.ingress,
            Direction::Egress => &mut self.egress,
        }
    }
}

impl Direction {
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The field of a policy that holds its rules.
    pub fn field(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl Policy {
    /// A policy that says nothing yet.
    pub fn new(object: String, tier: Tier) -> Self {
        Self {
            object,
            subject: None,
            tier,
            priority: 0,
            isolates: Both::default(),
            clauses: Both::default(),
            faults: Vec::new(),
        }
    }

    /// Notes that the object is wrong.
    pub fn fault(&mut self, bad: BadValue, consequence: &'static str) {
        self.faults.push(Fault {
            bad,
            consequence,
            broken: true,
        });
    }

    /// A sentence for each thing that is wrong.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let told = |fault: &Fault| format!("{}: {}; {}", self.object, fault.bad, fault.consequence);
        self.faults.iter().map(told)
    }

    /// The first thing that makes the object a broken one.
    pub fn first_broken(&self) -> Option<&BadValue> {
        let broken = self.faults.iter().find(|fault| fault.broken);
        broken.map(|fault| &fault.bad)
    }
}

impl Clause {
    /// The product of peers and traffic, as a rule means it.
    pub fn product(
        peers: &[Option<Selector>],
        traffic: &[Traffic],
        verdict: RuleVerdict,
        place: &str,
    ) -> Vec<Self> {
        let pairs = peers
            .iter()
            .flat_map(|peer| traffic.iter().map(move |traffic| (peer, traffic)));
        pairs
            .map(|(peer, traffic)| Self {
                peer: peer.clone(),
                traffic: traffic.clone(),
                verdict,
                place: place.to_owned(),
            })
            .collect()
    }
}
