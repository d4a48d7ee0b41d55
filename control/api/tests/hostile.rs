//! Whatever is written to a control socket is a message or an error, and a message survives its own
//! encoding.

#![expect(clippy::unwrap_used, reason = "helpers of a test")]

use std::path::Path;

use proptest::prelude::*;
use weft_api::fuzz::message;

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/message");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let files: Vec<_> = paths.iter().map(|p| std::fs::read(p).unwrap()).collect();
    assert!(files.len() >= 16, "only {} corpus files", files.len());
    files
}

#[test]
fn the_corpus_is_read_or_refused_even_cut() {
    for bytes in corpus() {
        for len in 0..=bytes.len() {
            message(&bytes[..len]);
        }
    }
}

proptest! {
    #[test]
    fn changed_messages_are_read_or_refused(
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        spliced in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let corpus = corpus();
        let mut bytes = pick.get(&corpus).clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        message(&bytes);
        let other = spliced.0.get(&corpus);
        bytes.extend_from_slice(&other[spliced.1.index(other.len())..]);
        message(&bytes);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        message(&bytes);
    }
}
