//! Whatever is written to `keeper.sock`, or comes back from it, is a message or an error.

use std::path::Path;

use weft_api::envelope::Request;
use weft_api::fuzz::survives;
use weft_keeper::protocol::{Op, PortRecords, Reply};

/// The corpus of the fuzz target `keeper_message`, whole, cut at every length, and with every byte
/// replaced.
#[test]
fn the_corpus_is_read_or_refused_even_cut_or_changed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/message");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        files += 1;
        for at in 0..bytes.len() {
            read(&bytes[..at]);
            for value in [0, b'"', b'{', b'9', 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                read(&changed);
            }
        }
    }
    assert!(files >= 10, "only {files} corpus files");
}

fn read(bytes: &[u8]) {
    survives::<Request<Op>>(bytes);
    survives::<Reply>(bytes);
    survives::<PortRecords>(bytes);
}
