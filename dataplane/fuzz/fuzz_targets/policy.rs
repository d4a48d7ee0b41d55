//! Any bytes as policies, compiled, put into the packet path's tables and asked about connections: no panic.
//! Corpus: `control/model/corpus/manifest`.
#![no_main]

use weft_api::policy::{PolicyRule, RuleVerdict as Verdict};
use weft_engine::{PolicyBuilder, PolicyDirection, Rule, RuleId, RuleVerdict, Traffic};
use weft_wire::Protocol;

fn rules(rules: &[PolicyRule]) -> Vec<Rule> {
    let rule = |rule: &PolicyRule| Rule {
        tier: rule.tier,
        peer: rule.peer,
        protocol: rule.protocol,
        ports: rule.ports.map(|ports| (ports.first, ports.last)),
        verdict: match rule.verdict {
            Verdict::Allow => RuleVerdict::Allow,
            Verdict::Deny => RuleVerdict::Deny,
            Verdict::Pass => RuleVerdict::Pass,
        },
        id: RuleId(1),
    };
    rules.iter().map(rule).collect()
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    for policies in weft_model::fuzz::policies(input) {
        let mut builder = PolicyBuilder::default();
        for identity in &policies.identities {
            builder.set_identity(identity.id, Some(identity.selectors.clone()));
        }
        for address in &policies.addresses {
            builder.set_address(address.prefix, Some(address.identity));
        }
        for endpoint in &policies.endpoints {
            let (ingress, egress) = (rules(&endpoint.ingress), rules(&endpoint.egress));
            builder.set_rules(endpoint.identity, ingress, egress);
        }
        let tables = builder.build();
        for peer in &policies.addresses {
            for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ICMP] {
                let traffic = Traffic::new(protocol, 80);
                for direction in [PolicyDirection::Ingress, PolicyDirection::Egress] {
                    let subject = [10, 1, 2, 9].into();
                    tables.decide(subject, direction, peer.prefix.addr(), traffic);
                }
            }
        }
    }
});
