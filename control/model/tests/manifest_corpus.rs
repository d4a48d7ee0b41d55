//! Replays the fuzzer's corpus and mutations of it: no bytes make the model panic.

#![expect(clippy::unwrap_used, reason = "helpers of a test")]

use std::path::Path;

use proptest::prelude::*;
use weft_model::fuzz;
use weft_model::manifest;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/manifest");
    let entries = std::fs::read_dir(dir).unwrap();
    let mut corpus: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    corpus.sort();
    corpus
}

#[test]
fn the_corpus_reads_as_its_names_say() {
    let corpus = corpus();
    assert!(corpus.len() >= 10);
    for (name, bytes) in corpus {
        fuzz::manifest(&bytes);
        let result = manifest::parse(&name, &bytes);
        assert_eq!(
            result.is_ok(),
            name.starts_with("good_"),
            "{name}: {result:?}"
        );
    }
}

/// Cuts, repeats, overwrites and splices: what half-written files and bad tools do.
fn mutate(mut bytes: Vec<u8>, edits: &[(u16, u16, u8, u8)], other: &[u8]) -> Vec<u8> {
    for (at, len, what, byte) in edits {
        let at = usize::from(*at) % (bytes.len() + 1);
        let end = (at + usize::from(*len) % 64).min(bytes.len());
        match what % 5 {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes[at..end].fill(*byte),
            3 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let from = usize::from(*byte) % (other.len() + 1);
                bytes.splice(at..end, other[from..].iter().copied().take(64));
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn mutated_manifests_never_panic(
        pick in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
        edits in prop::collection::vec(any::<(u16, u16, u8, u8)>(), 1..6),
    ) {
        let corpus = corpus();
        let bytes = pick.get(&corpus).1.clone();
        fuzz::manifest(&mutate(bytes, &edits, &other.get(&corpus).1));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz::manifest(&bytes);
    }
}
