//! Any bytes through every parser: no panic. Corpus: `dataplane/wire/corpus`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| weft_wire::fuzz::parse_any(input));
