//! Any bytes as a manifest, over a good one, compiled to table objects: no panic.
//! Corpus: `control/model/corpus/manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| weft_model::fuzz::manifest(input));
