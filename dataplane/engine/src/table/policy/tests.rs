//! The tables against a plain model: objects in maps, the longest prefix by looking at all, the first rule that
//! matches by reading them in order.

use std::collections::BTreeMap;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Few identities, selectors and prefixes, so that objects meet.
const IDENTITIES: u32 = 6;
const SELECTORS: u32 = 5;
const PREFIXES: [&str; 9] = [
    "10.1.1.1/32",
    "10.1.1.2/32",
    "10.1.1.0/24",
    "10.0.0.0/8",
    "0.0.0.0/0",
    "fd00::1/128",
    "fd00::2/128",
    "fd00::/16",
    "::/0",
];
const ADDRESSES: [&str; 8] = [
    "10.1.1.1", "10.1.1.2", "10.1.1.3", "10.9.9.9", "11.1.1.1", "fd00::1", "fd00::3", "fe00::1",
];
const PORTS: [u16; 7] = [0, 1, 79, 80, 81, 8_080, u16::MAX];
const PROTOCOLS: [Protocol; 5] = [
    Protocol::TCP,
    Protocol::UDP,
    Protocol::SCTP,
    Protocol::ICMP,
    Protocol::ICMPV6,
];

#[derive(Clone, Debug)]
enum Change {
    Identity(u32, Option<Vec<u32>>),
    Address(&'static str, Option<u32>),
    Rules(u32, Option<(Vec<Rule>, Vec<Rule>)>),
}

#[derive(Default)]
struct Model {
    identities: BTreeMap<u32, Vec<u32>>,
    addresses: BTreeMap<&'static str, u32>,
    rules: BTreeMap<u32, (Vec<Rule>, Vec<Rule>)>,
}

impl Model {
    fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::Identity(number, Some(selectors)) => {
                self.identities.insert(number, selectors);
            }
            Change::Identity(number, None) => {
                self.identities.remove(&number);
            }
            Change::Address(prefix, Some(number)) => {
                self.addresses.insert(prefix, number);
            }
            Change::Address(prefix, None) => {
                self.addresses.remove(prefix);
            }
            Change::Rules(number, Some(rules)) => {
                self.rules.insert(number, rules);
            }
            Change::Rules(number, None) => {
                self.rules.remove(&number);
            }
        }
    }

    /// The identity of an address, if that is known.
    fn identity(&self, address: IpAddr) -> Option<u32> {
        let nets = self.addresses.iter().map(|(text, number)| {
            let net: IpNet = text.parse().expect("a prefix");
            (net, *number)
        });
        let longest = nets
            .filter(|(net, _)| net.contains(&address))
            .max_by_key(|(net, _)| net.prefix_len());
        let number = longest?.1;
        self.identities.contains_key(&number).then_some(number)
    }

    fn decide(
        &self,
        subject: IpAddr,
        direction: PolicyDirection,
        peer: IpAddr,
        protocol: Protocol,
        port: u16,
    ) -> Option<Decision> {
        let (ingress, egress) = self.rules.get(&self.identity(subject)?)?;
        let rules = match direction {
            PolicyDirection::Ingress => ingress,
            PolicyDirection::Egress => egress,
        };
        let peer = self.identity(peer).map(|number| &self.identities[&number]);
        let mut left = None;
        for rule in rules {
            let of_peer = match rule.peer {
                Some(selector) => peer.is_some_and(|it| it.contains(&selector)),
                None => true,
            };
            let of_traffic = rule.protocol.is_none_or(|it| it == protocol.0)
                && rule
                    .ports
                    .is_none_or(|(first, last)| (first..=last).contains(&port));
            if left == Some(rule.tier) || !of_peer || !of_traffic {
                continue;
            }
            match rule.verdict {
                RuleVerdict::Allow => return Some(Decision::allow(rule.id)),
                RuleVerdict::Deny => return Some(Decision::deny(rule.id)),
                RuleVerdict::Pass => left = Some(rule.tier),
            }
        }
        Some(Decision::DEFAULT)
    }
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let port = || select(&PORTS[..]);
    let traffic = prop_oneof![
        Just((None, None)),
        select(&PROTOCOLS[..]).prop_map(|it| (Some(it.0), None)),
        (select(&PROTOCOLS[..3]), port(), port())
            .prop_map(|(it, a, b)| (Some(it.0), Some((a.min(b), a.max(b))))),
    ];
    let verdict = select(vec![
        RuleVerdict::Allow,
        RuleVerdict::Deny,
        RuleVerdict::Pass,
    ]);
    let rule = (
        0_u8..3,
        proptest::option::of(0..SELECTORS),
        traffic,
        verdict,
        1_u32..50,
    )
        .prop_map(|(tier, peer, (protocol, ports), verdict, id)| Rule {
            tier,
            peer,
            protocol,
            ports,
            verdict,
            id: RuleId(id),
        });
    vec(rule, 0..8).prop_map(|mut rules| {
        rules.sort_by_key(|rule| rule.tier);
        rules
    })
}

fn change() -> impl Strategy<Value = Change> {
    let number = || 1..=IDENTITIES;
    let selectors = btree_set(0..SELECTORS, 0..4).prop_map(|it| it.into_iter().collect());
    prop_oneof![
        3 => (number(), proptest::option::weighted(0.8, selectors))
            .prop_map(|(number, selectors)| Change::Identity(number, selectors)),
        3 => (select(&PREFIXES[..]), proptest::option::weighted(0.8, number()))
            .prop_map(|(prefix, number)| Change::Address(prefix, number)),
        2 => (number(), proptest::option::weighted(0.8, (rules(), rules())))
            .prop_map(|(number, rules)| Change::Rules(number, rules)),
    ]
}

fn apply(builder: &mut PolicyBuilder, change: &Change) {
    match change.clone() {
        Change::Identity(number, selectors) => builder.set_identity(number, selectors),
        Change::Address(prefix, number) => {
            builder.set_address(prefix.parse().expect("a prefix"), number);
        }
        Change::Rules(number, Some((ingress, egress))) => {
            builder.set_rules(number, ingress, egress);
        }
        Change::Rules(number, None) => builder.remove_rules(number),
    }
}

/// Everything that can be asked with the few addresses, protocols and ports.
fn answers(
    decide: impl Fn(IpAddr, PolicyDirection, IpAddr, Protocol, u16) -> Option<Decision>,
) -> Vec<Option<Decision>> {
    let mut answers = Vec::new();
    for subject in ADDRESSES {
        for peer in ADDRESSES {
            for direction in [PolicyDirection::Ingress, PolicyDirection::Egress] {
                for protocol in PROTOCOLS {
                    for port in PORTS {
                        let port = if has_ports(protocol) { port } else { 0 };
                        let (subject, peer) = (subject.parse(), peer.parse());
                        let (subject, peer) = (subject.expect("v4"), peer.expect("v6"));
                        answers.push(decide(subject, direction, peer, protocol, port));
                    }
                }
            }
        }
    }
    answers
}

fn of_tables(tables: &PolicyTables) -> Vec<Option<Decision>> {
    answers(|subject, direction, peer, protocol, port| {
        tables.decide(subject, direction, peer, Traffic::new(protocol, port))
    })
}

fn of_model(model: &Model) -> Vec<Option<Decision>> {
    answers(|subject, direction, peer, protocol, port| {
        model.decide(subject, direction, peer, protocol, port)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tables_answer_as_the_rules_read_in_order(changes in vec(change(), 1..40)) {
        let (mut builder, mut model) = (PolicyBuilder::default(), Model::default());
        let mut before = builder.build();
        for (step, change) in changes.iter().enumerate() {
            let answered = if step % 8 == 0 { of_tables(&before) } else { Vec::new() };
            apply(&mut builder, change);
            model.apply(change);
            let after = builder.build();
            if step % 8 == 0 {
                let now = of_tables(&after);
                prop_assert_eq!(&now, &of_model(&model));
                prop_assert_eq!(&of_tables(&before), &answered, "an old version stays as it was");
                prop_assert!(after.epoch() != before.epoch() || now == answered);
            }
            before = after;
        }
        prop_assert_eq!(of_tables(&before), of_model(&model));
    }
}

fn deny_tcp(peer: u32, id: u32) -> Rule {
    Rule {
        tier: 1,
        peer: Some(peer),
        protocol: Some(Protocol::TCP.0),
        ports: None,
        verdict: RuleVerdict::Deny,
        id: RuleId(id),
    }
}

#[test]
fn an_epoch_changes_with_what_is_decided_and_not_with_what_is_said_again() {
    let mut builder = PolicyBuilder::default();
    let rules = || vec![deny_tcp(1, 7)];
    builder.set_identity(1, Some(vec![1]));
    builder.set_rules(1, rules(), Vec::new());
    builder.set_address("10.0.0.0/8".parse().expect("a prefix"), Some(1));
    let first = builder.build();
    assert_ne!(first.epoch(), 0, "0 is no version");
    builder.set_identity(1, Some(vec![1]));
    builder.set_rules(1, rules(), Vec::new());
    builder.set_address("10.0.0.0/8".parse().expect("a prefix"), Some(1));
    assert_eq!(builder.build().epoch(), first.epoch());
    builder.set_identity(2, Some(vec![1]));
    assert_ne!(builder.build().epoch(), first.epoch());
}

#[test]
fn a_new_identity_changes_the_maps_of_those_who_name_it_and_shares_the_rest() {
    let mut builder = PolicyBuilder::default();
    for (number, selector) in [(1, 10), (2, 20)] {
        builder.set_identity(number, Some(Vec::new()));
        builder.set_rules(number, vec![deny_tcp(selector, number)], Vec::new());
    }
    let before = builder.build();
    builder.set_identity(3, Some(vec![20]));
    let after = builder.build();
    let same = |place| {
        let of = |tables: &PolicyTables| Arc::as_ptr(&tables.endpoints[&place]);
        of(&before) == of(&after)
    };
    assert!(same(1), "none of its rules speaks of the identity");
    assert!(!same(2));
}

#[test]
fn peers_with_the_same_rules_share_a_table() {
    let mut builder = PolicyBuilder::default();
    builder.set_identity(1, Some(Vec::new()));
    for number in 2..200 {
        builder.set_identity(number, Some(vec![5]));
    }
    builder.set_rules(1, vec![deny_tcp(5, 1)], Vec::new());
    let tables = builder.build();
    let endpoint = &tables.endpoints[&1];
    let of = |place| std::ptr::from_ref(endpoint.ingress.ports(IdentityIndex(place)));
    assert!((2..199).all(|place| of(place) == of(199)));
    assert_ne!(of(0), of(199));
}

#[test]
fn rules_beyond_those_counted_share_a_place() {
    let mut counters = PolicyCounters::new();
    counters.denied(RuleId(7));
    counters.denied(RuleId(RULES_COUNTED_MAX as u32 + 5));
    counters.denied(RuleId(u32::MAX));
    assert_eq!(counters.of(RuleId(7)), (0, 1));
    assert_eq!(counters.of(RuleId(RULES_COUNTED_MAX as u32 + 9)), (0, 2));
    counters.forget(RuleId(7));
    assert_eq!(counters.of(RuleId(7)), (0, 0));
}
