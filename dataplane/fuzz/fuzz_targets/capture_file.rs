//! Any bytes as a capture file for `weft trace`: packets or an error with its place.
//! Corpus: `control/cli/corpus/capture_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| weft_cli::capture_file::read_any(input));
