//! Entry points for fuzzers and for the tests that replay their corpora.

use weft_api::PodRef;

use crate::compile::{ClusterConfig, Compiler, LocalPod};
use crate::state::Store;

/// Reads `bytes` as a manifest, over a good one, and compiles what is there; must never panic.
pub fn manifest(bytes: &[u8]) {
    const GOOD: &[u8] =
        b"apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {podCIDR: 10.1.2.0/24}\n";
    let local = [LocalPod {
        pod: PodRef {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        },
        addresses: vec![[10, 1, 2, 9].into()],
    }];
    let mut store = Store::default();
    let mut compiler = Compiler::new(ClusterConfig::of_node("a"));
    for text in [GOOD, bytes] {
        for file in ["fuzz.yaml", "fuzz.json"] {
            store.apply(file, text);
        }
        compiler.compile(&store, &local);
    }
    store.problems();
    store.remove("fuzz.yaml");
    compiler.compile(&store, &local);
}
