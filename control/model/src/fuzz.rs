//! Entry points for fuzzers and for the tests that replay their corpora.

use weft_api::PodRef;

use crate::compile::{ClusterConfig, Compiler, LocalPod, PolicyObjects};
use crate::state::Store;

/// Reads `bytes` as a manifest, over a good one, and compiles what is there; must never panic.
pub fn manifest(bytes: &[u8]) {
    policies(bytes);
}

/// The policies that come of it: before, with and again without them.
pub fn policies(bytes: &[u8]) -> Vec<PolicyObjects> {
    const GOOD: &[u8] =
        b"apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {podCIDR: 10.1.2.0/24}\n";
    let local = [LocalPod {
        pod: PodRef {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        },
        addresses: vec![[10, 1, 2, 9].into()],
        host_ports: Vec::new(),
    }];
    let mut store = Store::default();
    let mut compiler = Compiler::new(ClusterConfig::of_node("a"));
    let mut compiled = Vec::new();
    for text in [GOOD, bytes] {
        for file in ["fuzz.yaml", "fuzz.json"] {
            store.apply(file, text);
        }
        compiled.push(compiler.compile(&store, &local).desired.policy);
    }
    store.problems();
    store.remove("fuzz.yaml");
    compiled.push(compiler.compile(&store, &local).desired.policy);
    compiled
}
