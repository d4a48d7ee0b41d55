//! Packets through a whole node: no panic, one verdict each, no frame lost.
//! Corpus: `dataplane/engine/corpus`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| weft_engine::fuzz::pipeline_no_leak(input));
