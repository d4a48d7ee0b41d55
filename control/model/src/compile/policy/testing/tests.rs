use std::collections::{BTreeMap, BTreeSet};

use super::fault::Fault;
use super::interpreter::{Tables, Verdict};
use super::meaning::Meaning;
use super::*;
use crate::compile::{ClusterConfig, Compiler};

const CLUSTERS: u64 = 400;
const CHANGES: u64 = 4;
const PACKETS: usize = 50;

fn compiler() -> Compiler {
    Compiler::new(ClusterConfig::of_node("node-1"))
}

/// What the compiler's tables say of a cluster.
fn tables(compiler: &mut Compiler, cluster: &Cluster, store: &mut Store) -> Tables {
    cluster.apply_to(store);
    assert_eq!(store.problems(), [] as [&str; 0]);
    let compiled = compiler.compile(store, &cluster.local);
    Tables::of(compiled.desired.objects())
}

fn allowed(verdict: Verdict<'_>) -> bool {
    match verdict {
        Verdict::Allowed(_) => true,
        Verdict::Denied(_) => false,
        Verdict::NoRules => panic!("a local pod without rules"),
    }
}

/// For each direction a local pod decides: what the API says and what the tables say.
fn verdicts(cluster: &Cluster, tables: &Tables, packet: &Packet) -> Vec<(bool, bool)> {
    let ingress = cluster.allows_ingress(packet);
    let ingress = ingress.map(|wanted| (wanted, allowed(tables.ingress(packet))));
    let egress = cluster.allows_egress(packet);
    let egress = egress.map(|wanted| (wanted, allowed(tables.egress(packet))));
    ingress.into_iter().chain(egress).collect()
}

#[derive(Default)]
struct Coverage {
    /// Denied and all, by protocol.
    denied: BTreeMap<u8, (u32, u32)>,
    fields: BTreeSet<String>,
}

impl Coverage {
    fn count(&mut self, packet: &Packet, is_allowed: bool) {
        let (denied, all) = self.denied.entry(packet.protocol).or_default();
        *denied += u32::from(!is_allowed);
        *all += 1;
    }

    /// Notes the fields of all policies, as `NetworkPolicy.spec.ingress.from`.
    fn look_at(&mut self, cluster: &Cluster) {
        let manifest: Value = serde_json::from_str(&cluster.manifest()).unwrap();
        for object in manifest["items"].as_array().unwrap() {
            let kind = object["kind"].as_str().unwrap().to_owned();
            self.walk(kind, &object["spec"]);
        }
    }

    fn walk(&mut self, path: String, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (field, value) in fields {
                    self.walk(format!("{path}.{field}"), value);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.walk(path.clone(), item)),
            Value::String(text) if path.ends_with("perator") || path.ends_with("action") => {
                self.fields.insert(format!("{path}={text}"));
            }
            Value::String(_) if path.ends_with(".port") => {
                self.fields.insert(format!("{path}=name"));
            }
            _ => {}
        }
        if !value.is_object() || path.ends_with("elector") {
            self.fields.insert(path);
        }
    }
}

const FIELDS: &str = include_str!("fields.txt");

#[test]
fn verdicts_are_those_of_the_api() {
    let mut coverage = Coverage::default();
    let mut pairs = 0;
    for seed in 0..CLUSTERS {
        let mut cluster = generator::cluster(seed);
        let (mut store, mut compiler) = (Store::default(), compiler());
        for step in 0..=CHANGES {
            let seed = seed * 1_000 + step;
            if step > 0 {
                generator::change(&mut cluster, seed);
            }
            if step == 0 {
                coverage.look_at(&cluster);
            }
            let tables = tables(&mut compiler, &cluster, &mut store);
            for packet in generator::packets(&cluster, seed, PACKETS) {
                pairs += 1;
                for (wanted, found) in verdicts(&cluster, &tables, &packet) {
                    coverage.count(&packet, wanted);
                    assert_eq!(
                        wanted,
                        found,
                        "seed {seed}: {packet:?}\n{}\n{tables:#?}",
                        cluster.manifest()
                    );
                }
            }
        }
    }
    assert!(pairs >= 100_000, "{pairs} pairs");
    println!(
        "{pairs} packets, denied and all by protocol: {:?}",
        coverage.denied
    );
    for protocol in [6, 17, 132] {
        let (denied, all) = coverage.denied[&protocol];
        assert!(
            denied * 10 >= all * 3,
            "{protocol}: {denied} of {all} denied"
        );
    }
    for field in FIELDS.lines() {
        assert!(coverage.fields.contains(field), "no policy has {field}");
    }
}

#[test]
fn a_compiler_that_remembers_says_what_a_new_one_says() {
    for seed in 0..100 {
        let mut cluster = generator::cluster(seed);
        let (mut store, mut compiler) = (Store::default(), compiler());
        for step in 0..12 {
            generator::change(&mut cluster, seed * 100 + step);
            let old = tables(&mut compiler, &cluster, &mut store);
            let new = tables(&mut self::compiler(), &cluster, &mut Store::default());
            assert_eq!(
                Meaning::of(&old),
                Meaning::of(&new),
                "seed {seed}, step {step}"
            );
        }
    }
}

#[test]
fn verdicts_are_those_of_an_independent_generator() {
    let cases = conformance::cases().unwrap();
    assert_eq!(cases.len(), 107);
    let (mut store, mut compiler) = (Store::default(), compiler());
    for case in &cases {
        assert_eq!(case.packets.len(), 9 * 9 * 6);
        let tables = tables(&mut compiler, &case.cluster, &mut store);
        for (packet, wanted) in &case.packets {
            let found = allowed(tables.ingress(packet)) && allowed(tables.egress(packet));
            assert_eq!(found, *wanted, "{}: {packet:?}", case.name);
            let ingress = case.cluster.allows_ingress(packet).unwrap();
            let egress = case.cluster.allows_egress(packet).unwrap();
            assert_eq!(ingress && egress, *wanted, "{}: {packet:?}", case.name);
        }
    }
}

#[test]
fn every_seeded_fault_is_found() {
    'faults: for fault in Fault::ALL {
        for seed in 0..CLUSTERS {
            let cluster = generator::cluster(seed);
            let mut wrong = cluster.clone();
            fault.apply_to_cluster(&mut wrong);
            let mut tables = tables(&mut compiler(), &wrong, &mut Store::default());
            fault.apply_to_tables(&mut tables);
            let packets = generator::packets(&cluster, seed * 1_000, PACKETS);
            if packets
                .iter()
                .any(|packet| differs(&cluster, &tables, packet))
            {
                continue 'faults;
            }
        }
        panic!("{fault:?} changes no verdict");
    }
}

fn differs(cluster: &Cluster, tables: &Tables, packet: &Packet) -> bool {
    let is = |verdict: Verdict<'_>| matches!(verdict, Verdict::Allowed(_));
    let ingress = cluster.allows_ingress(packet);
    let egress = cluster.allows_egress(packet);
    ingress.is_some_and(|wanted| wanted != is(tables.ingress(packet)))
        || egress.is_some_and(|wanted| wanted != is(tables.egress(packet)))
}
