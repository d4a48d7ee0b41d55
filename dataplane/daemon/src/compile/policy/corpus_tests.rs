//! Any manifest, compiled by the agent's code, makes tables that answer: the fuzzer's corpus, and changes of it.

use std::net::IpAddr;

use proptest::prelude::*;
use weft_api::object::Object;
use weft_engine::{PolicyDirection, TablesBuilder, Traffic};

use super::*;
use crate::compile::check;

/// The address of the only local pod.
const POD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 9));

fn corpus() -> Vec<Vec<u8>> {
    let directory = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../control/model/corpus/manifest"
    );
    let entries = std::fs::read_dir(directory).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

/// How many decisions the tables gave.
fn ask(manifest: &[u8]) -> usize {
    let (mut policies, mut builder) = (Policies::default(), TablesBuilder::new());
    let mut answers = 0;
    for compiled in weft_model::fuzz::policies(manifest) {
        let objects: Vec<Object> = compiled.objects().collect();
        for object in &objects {
            assert_eq!(check(object), Ok(()), "{object:?}");
        }
        let sorted = crate::compile::Sorted::of(objects.iter());
        policies.apply(&sorted.policy, builder.policy());
        let tables = builder.build();
        let peers = compiled.addresses.iter().map(|it| it.prefix.addr());
        for peer in peers.chain([[203, 0, 113, 9].into()]) {
            for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ICMP] {
                for direction in [PolicyDirection::Ingress, PolicyDirection::Egress] {
                    let traffic = Traffic::new(protocol, 80);
                    let decision = tables.policy().decide(POD, direction, peer, traffic);
                    answers += usize::from(decision.is_some());
                }
            }
        }
    }
    answers
}

#[test]
fn tables_of_the_corpus_answer() {
    for manifest in corpus() {
        assert!(ask(&manifest) > 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn tables_of_changed_manifests_answer(
        pick in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<u16>(), any::<u8>(), any::<bool>()), 1..4),
    ) {
        let corpus = corpus();
        let mut manifest = pick.get(&corpus).clone();
        for (at, byte, removes) in edits {
            let at = usize::from(at) % (manifest.len() + 1);
            match manifest.get_mut(at) {
                Some(_) if removes => drop(manifest.remove(at)),
                Some(place) => *place = byte,
                None => manifest.push(byte),
            }
        }
        ask(&manifest);
    }
}
