//! Any bytes on the sockets of agent and dataplane, table objects included: read or refused.
//! Corpus: `control/api/corpus/message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| weft_api::fuzz::message(input));
