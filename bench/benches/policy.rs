//! Nanoseconds per question to the policies, and microseconds per change of one pod, with ever more rules.
#![expect(
    clippy::expect_used,
    reason = "a bench that cannot be set up cannot go on"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;
use weft_engine::{PolicyBuilder, PolicyDirection, Rule, RuleId, RuleVerdict, Traffic};
use weft_wire::Protocol;

/// Pods of the cluster, each with an identity of its own.
const PODS: u32 = 5_000;

/// Pods of this node.
const LOCAL: u32 = 110;

/// Questions of one turn.
const BATCH: u32 = 32;

/// Selectors that match each pod.
const SELECTORS_EACH: u32 = 3;

fn address(pod: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a01_0000 + pod).into()
}

/// The selectors that match a pod, of so many.
fn selectors(pod: u32, of: u32) -> Vec<u32> {
    let mut selectors: Vec<u32> = (0..SELECTORS_EACH)
        .map(|at| pod.wrapping_mul(2_654_435_761).wrapping_add(at * 977) % of)
        .collect();
    selectors.sort_unstable();
    selectors.dedup();
    selectors
}

/// Every local pod takes one port from whom each selector matches, and no other.
fn rules(count: u32) -> Vec<Rule> {
    let allow = |at: u32| Rule {
        tier: 1,
        peer: Some(at),
        protocol: Some(Protocol::TCP.0),
        ports: Some((at as u16, at as u16)),
        verdict: RuleVerdict::Allow,
        id: RuleId(at + 1),
    };
    let rest = Rule {
        peer: None,
        protocol: None,
        ports: None,
        verdict: RuleVerdict::Deny,
        ..allow(count)
    };
    (0..count).map(allow).chain([rest]).collect()
}

fn cluster(count: u32) -> PolicyBuilder {
    let mut policy = PolicyBuilder::default();
    for pod in 0..PODS {
        policy.set_identity(pod + 1, Some(selectors(pod, count)));
        policy.set_address(IpNet::from(address(pod)), Some(pod + 1));
    }
    for pod in 0..LOCAL {
        policy.set_rules(pod + 1, rules(count), Vec::new());
    }
    policy
}

fn policy(criterion: &mut Criterion) {
    for count in [10, 100, 1_000] {
        let mut builder = cluster(count);
        let tables = builder.build();
        let mut group = criterion.benchmark_group("policy");
        group.throughput(Throughput::Elements(BATCH.into()));
        let mut next = 1_u32;
        group.bench_function(format!("decide/{count}_rules"), |bencher| {
            bencher.iter(|| {
                for _ in 0..BATCH {
                    next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let (pod, peer) = (address(next % LOCAL), address((next >> 8) % PODS));
                    let traffic = Traffic::new(Protocol::TCP, (next >> 16) as u16);
                    let direction = PolicyDirection::Ingress;
                    let decision = tables.decide(pod, direction, peer, traffic);
                    black_box(decision.expect("a pod of this node"));
                }
            });
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("change_of_a_pod/{count}_rules"), |bencher| {
            bencher.iter(|| {
                next = next.wrapping_add(1);
                builder.set_identity(PODS, Some(selectors(next, count)));
                black_box(builder.build())
            });
        });
        group.finish();
    }
}

criterion_group!(benches, policy);
criterion_main!(benches);
