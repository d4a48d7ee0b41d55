//! Tables with ever more policies: neither known connections nor new ones may cost more with their number.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use weft_engine::testbed::{self, ip};
use weft_engine::{Rule, RuleId, RuleVerdict, Tables};
use weft_wire::Protocol;

use super::{A4, B4};

/// Pods of the cluster the policies are about, each with an identity of its own.
const PODS: u32 = 5_000;

/// The node's tables with so many policies about pod B. Each lets one of the others in on one port, the last the
/// client, and everybody else is kept out.
pub fn tables(count: u32) -> Tables {
    let [client, server] = [PODS + 1, PODS + 2];
    let pods = (0..PODS).map(|pod| (pod, IpAddr::from(Ipv4Addr::from_bits(0x0af5_0000 + pod))));
    let local = [(client, ip(A4)), (server, ip(B4))];
    let mut bed = testbed::Testbed::new();
    bed.change(|builder| {
        let policy = builder.policy();
        for (pod, address) in pods.chain(local) {
            // 0 is the world's.
            policy.set_identity(pod + 1, Some(vec![pod]));
            policy.set_address(IpNet::from(address), Some(pod + 1));
        }
        policy.set_rules(client + 1, Vec::new(), Vec::new());
        policy.set_rules(server + 1, rules(count, client), Vec::new());
    });
    bed.tables.clone()
}

fn rules(count: u32, client: u32) -> Vec<Rule> {
    let rule = |at: u32| Rule {
        tier: 1,
        peer: Some(at % PODS),
        protocol: Some(Protocol::UDP.0),
        ports: Some((at as u16, at as u16)),
        verdict: RuleVerdict::Allow,
        id: RuleId(at + 1),
    };
    let any = |peer, verdict| Rule {
        peer,
        ports: None,
        verdict,
        ..rule(count)
    };
    let mut rules: Vec<Rule> = (0..count).map(rule).collect();
    if count > 0 {
        rules.push(any(Some(client), RuleVerdict::Allow));
        rules.push(any(None, RuleVerdict::Deny));
    }
    rules
}
