//! Any bytes as the plugin's configuration and environment: a value or an error.
//! Corpus: `cni/tests/corpus`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| weft_cni::decode_any(input));
