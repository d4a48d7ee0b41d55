//! What the engine's tables say of generated clusters is what the Kubernetes API says: objects compiled by the agent's
//! code, tables by this crate's, both step by step as the cluster changes.

use std::collections::BTreeMap;

use weft_api::object::Object;
use weft_engine::{PolicyDirection, TablesBuilder, Traffic};
use weft_model::compile::testing::{Packet, generator};
use weft_model::compile::{ClusterConfig, Compiler as Model};
use weft_model::state::Store;
use weft_wire::Protocol;

use super::*;

const CLUSTERS: u64 = 400;
const CHANGES: u64 = 4;
const PACKETS: usize = 50;

/// What the tables say of a packet, asked for one of its ends.
fn allowed(tables: &weft_engine::Tables, packet: &Packet, direction: PolicyDirection) -> bool {
    let (subject, peer) = match direction {
        PolicyDirection::Ingress => (packet.destination, packet.source),
        PolicyDirection::Egress => (packet.source, packet.destination),
    };
    let traffic = Traffic::new(Protocol(packet.protocol), packet.port);
    let decision = tables.policy().decide(subject, direction, peer, traffic);
    decision
        .unwrap_or_else(|| panic!("a local pod without rules: {packet:?}"))
        .is_allowed()
}

#[test]
fn a_hundred_thousand_verdicts_are_those_of_the_api() {
    let (mut pairs, mut decided) = (0, BTreeMap::<u8, [u32; 2]>::new());
    for seed in 0..CLUSTERS {
        let mut cluster = generator::cluster(seed);
        let (mut store, mut model) = (
            Store::default(),
            Model::new(ClusterConfig::of_node("node-1")),
        );
        let (mut policies, mut builder) = (Policies::default(), TablesBuilder::new());
        for step in 0..=CHANGES {
            let seed = seed * 1_000 + step;
            if step > 0 {
                generator::change(&mut cluster, seed);
            }
            cluster.apply_to(&mut store);
            let compiled = model.compile(&store, &cluster.local);
            let objects: Vec<Object> = compiled.desired.policy.objects().collect();
            let sorted = crate::compile::Sorted::of(objects.iter());
            policies.apply(&sorted.policy, builder.policy());
            let tables = builder.build();
            for packet in generator::packets(&cluster, seed, PACKETS) {
                pairs += 1;
                let wanted = [
                    (PolicyDirection::Ingress, cluster.allows_ingress(&packet)),
                    (PolicyDirection::Egress, cluster.allows_egress(&packet)),
                ];
                for (direction, wanted) in wanted {
                    let Some(wanted) = wanted else { continue };
                    let found = allowed(&tables, &packet, direction);
                    assert_eq!(
                        found,
                        wanted,
                        "seed {seed}, {direction:?}: {packet:?}\n{}",
                        cluster.manifest()
                    );
                    decided.entry(packet.protocol).or_default()[usize::from(found)] += 1;
                }
            }
        }
    }
    println!("{pairs} packets, denied and allowed by protocol: {decided:?}");
    assert!(pairs >= 100_000, "{pairs} pairs");
    for (protocol, [denied, allowed]) in decided {
        assert!(
            denied * 7 >= allowed * 3,
            "{protocol}: {denied} denied, {allowed} allowed"
        );
    }
}
