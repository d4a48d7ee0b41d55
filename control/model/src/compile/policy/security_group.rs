//! Security groups: which pods have which (`SecurityGroupPolicy`), and what they allow
//! (`SecurityGroup`).
//!
//! A pod that a SecurityGroupPolicy selects may do what some rule of its groups allows and nothing
//! else. A group there is no SecurityGroup for allows nothing, a rule with something wrong in it is
//! left out, and a SecurityGroupPolicy with something wrong in it gives every pod of its namespace a
//! group that allows nothing.

use std::collections::BTreeSet;

use weft_api::policy::{PortRange, RuleVerdict};

use super::network_policy::port_number;
use super::rule::{Clause, Direction, Policy, Tier, Traffic, protocol};
use super::selector::{Block, LabelQuery, Labels, Selector, SelectorFault};
use crate::facts::BadValue;
use crate::manifest::security_group::{SecurityGroup, SecurityGroupPolicy, SecurityGroupRule};

const RULE_LEFT_OUT: &str = "the rule is left out";
const NAMESPACE_CUT_OFF: &str = "every pod of the namespace is cut off";
const ALLOWS_NOTHING: &str = "the group allows nothing";

/// Which pods of a namespace have which groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    /// Kind and name, for people.
    pub object: String,
    pub namespace: String,
    /// By the pod's labels.
    pods: LabelQuery,
    /// By the service account's labels.
    pub accounts: Option<LabelQuery>,
    pub groups: BTreeSet<String>,
    /// What is wrong with it.
    pub faults: Vec<BadValue>,
}

impl Membership {
    /// Reads a policy of `namespace`.
    pub fn read(object: String, namespace: &str, policy: &SecurityGroupPolicy) -> Self {
        match Self::parts(policy) {
            Ok((pods, accounts)) => Self {
                object,
                namespace: namespace.to_owned(),
                pods,
                accounts,
                groups: policy
                    .spec
                    .security_groups
                    .group_ids
                    .iter()
                    .cloned()
                    .collect(),
                faults: Vec::new(),
            },
            Err(fault) => Self::broken(object, namespace, fault.at("spec").into()),
        }
    }

    /// A policy nothing but the name is known of.
    pub fn unreadable(object: String, namespace: &str) -> Self {
        let bad = BadValue {
            value: String::new(),
            reason: "cannot be read".to_owned(),
        };
        Self::broken(object, namespace, bad)
    }

    fn broken(object: String, namespace: &str, bad: BadValue) -> Self {
        Self {
            object,
            namespace: namespace.to_owned(),
            pods: LabelQuery::default(),
            accounts: None,
            groups: BTreeSet::new(),
            faults: vec![bad],
        }
    }

    fn parts(
        policy: &SecurityGroupPolicy,
    ) -> Result<(LabelQuery, Option<LabelQuery>), SelectorFault> {
        let spec = &policy.spec;
        let fault = |text: &str| SelectorFault::new("", text.to_owned());
        if spec.security_groups.group_ids.is_empty() {
            return Err(fault("must have at least one group").at(".securityGroups.groupIds"));
        }
        if spec.pod_selector.is_none() && spec.service_account_selector.is_none() {
            return Err(fault(
                "must have one of podSelector and serviceAccountSelector",
            ));
        }
        let pods = spec.pod_selector.as_ref().map(LabelQuery::of).transpose();
        let accounts = spec.service_account_selector.as_ref().map(LabelQuery::of);
        Ok((
            pods.map_err(|fault| fault.at(".podSelector"))?
                .unwrap_or_default(),
            accounts
                .transpose()
                .map_err(|fault| fault.at(".serviceAccountSelector"))?,
        ))
    }

    /// Whether a pod of the namespace has the groups. Without a service account that is known it
    /// has no labels.
    pub fn selects(&self, pod: &Labels, account: &Labels) -> bool {
        let of_account = self
            .accounts
            .as_ref()
            .is_none_or(|query| query.matches(account));
        self.pods.matches(pod) && of_account
    }

    /// A sentence for each thing that is wrong.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let told = |bad: &BadValue| format!("{}: {bad}; {NAMESPACE_CUT_OFF}", self.object);
        self.faults.iter().map(told)
    }
}

/// Reads what a group allows. What it allows goes on to the next tier.
pub(super) fn read(object: String, group: &SecurityGroup) -> Policy {
    let mut policy = Policy::new(object, Tier::Groups);
    for direction in Direction::BOTH {
        let (field, rules) = match direction {
            Direction::Ingress => ("inbound", &group.spec.inbound),
            Direction::Egress => ("outbound", &group.spec.outbound),
        };
        for (index, rule) in rules.iter().enumerate() {
            let place = format!("{field}[{index}]");
            match read_rule(rule) {
                Ok((peer, traffic)) => {
                    let clauses =
                        Clause::product(&[Some(peer)], &traffic, RuleVerdict::Pass, &place);
                    policy.clauses.get_mut(direction).extend(clauses);
                }
                Err(fault) => {
                    policy.fault(fault.at(&format!("spec.{place}")).into(), RULE_LEFT_OUT);
                }
            }
        }
    }
    policy
}

/// A group nothing but the name is known of.
pub(super) fn unreadable(object: String) -> Policy {
    let mut policy = Policy::new(object, Tier::Groups);
    let bad = BadValue {
        value: String::new(),
        reason: "cannot be read".to_owned(),
    };
    policy.fault(bad, ALLOWS_NOTHING);
    policy
}

fn read_rule(rule: &SecurityGroupRule) -> Result<(Selector, Vec<Traffic>), SelectorFault> {
    let peer = match (&rule.cidr, &rule.group) {
        (Some(cidr), None) => Selector::Block(Block::of(cidr, &[])?),
        (None, Some(group)) => Selector::Group(group.clone()),
        _ => {
            let reason = "must have one of cidr and group".to_owned();
            return Err(SelectorFault::new("", reason));
        }
    };
    let number = match rule.protocol.as_str() {
        "tcp" => protocol::TCP,
        "udp" => protocol::UDP,
        "sctp" => protocol::SCTP,
        text @ ("icmp" | "all") => {
            if rule.from_port.is_some() || rule.to_port.is_some() {
                let reason = format!("{text} has no ports");
                return Err(SelectorFault::new(text, reason).at(".protocol"));
            }
            return Ok((peer, portless(text)));
        }
        text => {
            let reason = format!("'{text}' is none of tcp, udp, sctp, icmp and all");
            return Err(SelectorFault::new(text, reason).at(".protocol"));
        }
    };
    let traffic = match (rule.from_port, rule.to_port) {
        (None, None) => Traffic::Protocol(number),
        (Some(first), last) => Traffic::Ports(number, ports(first, last.unwrap_or(first))?),
        (None, Some(last)) => {
            let reason = "stands without fromPort".to_owned();
            return Err(SelectorFault::new(&last.to_string(), reason).at(".toPort"));
        }
    };
    Ok((peer, vec![traffic]))
}

fn portless(text: &str) -> Vec<Traffic> {
    match text {
        "icmp" => vec![
            Traffic::Protocol(protocol::ICMP),
            Traffic::Protocol(protocol::ICMPV6),
        ],
        _ => vec![Traffic::Any],
    }
}

fn ports(first: i64, last: i64) -> Result<PortRange, SelectorFault> {
    let first = port_number(first).map_err(|fault| fault.at(".fromPort"))?;
    let last = port_number(last).map_err(|fault| fault.at(".toPort"))?;
    match last < first {
        true => {
            let reason = format!("{last} is lower than fromPort {first}");
            Err(SelectorFault::new(&last.to_string(), reason).at(".toPort"))
        }
        false => Ok(PortRange { first, last }),
    }
}
