//! What of the `weft` command is also tested and fuzzed apart from it.
#![forbid(unsafe_code)]

pub mod capture_file;
