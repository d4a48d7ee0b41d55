//! Any bytes on the keeper's socket, in both directions: read or refused.
//! Corpus: `dataplane/keeper/corpus/message`.
#![no_main]

use weft_api::envelope::Request;
use weft_api::fuzz::survives;
use weft_keeper::protocol::{Op, PortRecords, Reply};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    survives::<Request<Op>>(input);
    survives::<Reply>(input);
    survives::<PortRecords>(input);
});
