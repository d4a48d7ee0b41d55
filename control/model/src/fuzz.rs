//! Entry points for fuzzers and for the tests that replay their corpora.

use crate::compile::{ClusterConfig, Compiler};
use crate::state::Store;

/// Reads `bytes` as a manifest, over a good one, and compiles what is there; must never panic.
pub fn manifest(bytes: &[u8]) {
    const GOOD: &[u8] =
        b"apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {podCIDR: 10.1.2.0/24}\n";
    let mut store = Store::default();
    let mut compiler = Compiler::new(ClusterConfig::of_node("a"));
    for text in [GOOD, bytes] {
        for file in ["fuzz.yaml", "fuzz.json"] {
            store.apply(file, text);
        }
        compiler.compile(&store, &[]);
    }
    store.problems();
    store.remove("fuzz.yaml");
    compiler.compile(&store, &[]);
}
