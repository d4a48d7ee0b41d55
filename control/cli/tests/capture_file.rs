//! Capture files of others: all forms, broken ones with the place where they are, and no bytes that panic.
#![expect(clippy::unwrap_used, reason = "helpers of a test")]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use weft_cli::capture_file::{CaptureFile, CaptureFileError, CapturedPacket, read_any};

fn corpus() -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(directory()).unwrap();
    let mut corpus: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    corpus.sort();
    corpus
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/capture_file")
}

/// The packets, and what ended them.
fn read(bytes: &[u8]) -> (Vec<CapturedPacket>, Option<CaptureFileError>) {
    let mut packets = Vec::new();
    let mut file = match CaptureFile::open(bytes) {
        Ok(file) => file,
        Err(error) => return (packets, Some(error)),
    };
    loop {
        match file.packet() {
            Ok(Some(packet)) => packets.push(packet),
            Ok(None) => return (packets, None),
            Err(error) => {
                assert_eq!(file.packet(), Ok(None), "nothing follows an error");
                return (packets, Some(error));
            }
        }
    }
}

fn of(name: &str) -> (Vec<CapturedPacket>, Option<CaptureFileError>) {
    read(&std::fs::read(directory().join(name)).unwrap())
}

#[test]
fn the_corpus_reads_as_its_names_say() {
    let corpus = corpus();
    assert!(corpus.len() >= 14);
    for (name, bytes) in corpus {
        let (packets, error) = read(&bytes);
        assert_eq!(
            error.is_none(),
            name.starts_with("good_"),
            "{name}: {error:?}"
        );
        for (index, packet) in packets.iter().enumerate() {
            assert_eq!(packet.number, index as u64 + 1);
        }
        let frames = packets.iter().filter(|it| it.bytes.len() == 42);
        let is_ip = |it: &CapturedPacket| it.bytes[12..15] == [8, 0, 0x45];
        assert!(frames.clone().all(is_ip), "{name}");
        assert_eq!(frames.count() == 0, packets.is_empty(), "{name}");
    }
}

#[test]
fn a_capture_of_weft_tells_ports_and_directions() {
    let (packets, _) = of("good_weft_capture.pcapng");
    let ports = packets
        .iter()
        .map(|it| (it.interface.as_deref(), it.outbound));
    let ports: Vec<_> = ports.collect();
    assert_eq!(
        ports,
        [
            (Some("weft1"), false),
            (Some("weft2"), true),
            (Some("weft1"), false)
        ]
    );
}

#[test]
fn a_packet_that_was_cut_says_how_long_it_was() {
    let (packets, _) = of("good_big_endian_ns.pcap");
    assert_eq!((packets[1].bytes.len(), packets[1].original_len), (20, 42));
    assert_eq!(packets[1].offset, 24 + 16 + 42);
}

#[test]
fn what_is_broken_is_told_with_its_place() {
    for (name, before, at, says) in [
        ("bad_cut_off.pcap", 1, 82, "ends in the middle"),
        ("bad_link_type.pcap", 0, 24, "link type is 113"),
        (
            "bad_record_too_long.pcap",
            1,
            82,
            "longer than a packet can be",
        ),
        ("bad_no_interface.pcapng", 0, 48, "no interface 0"),
        ("bad_block_length.pcapng", 0, 104, "make no sense"),
        ("bad_packet_length.pcapng", 0, 104, ""),
    ] {
        let (packets, error) = of(name);
        let Some(CaptureFileError::Broken { offset, what }) = error else {
            panic!("{name}: {error:?}");
        };
        assert_eq!((packets.len(), offset), (before, at), "{name}: {what}");
        assert!(what.contains(says), "{name}: {what}");
    }
    for name in ["bad_text.txt", "bad_empty"] {
        assert_eq!(of(name), (Vec::new(), Some(CaptureFileError::Other)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn changed_files_never_panic(
        pick in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<u16>(), any::<u8>(), any::<bool>()), 1..6),
    ) {
        let corpus = corpus();
        let mut bytes = pick.get(&corpus).1.clone();
        for (at, byte, cuts) in edits {
            let at = usize::from(at) % (bytes.len() + 1);
            match bytes.get_mut(at) {
                Some(place) if !cuts => *place = byte,
                _ => bytes.truncate(at.max(24)),
            }
        }
        read_any(&bytes);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_any(&bytes);
        // As a pcap and a pcapng file behind a good beginning.
        for name in ["good_little_endian.pcap", "good_weft_capture.pcapng"] {
            let mut file = std::fs::read(directory().join(name)).unwrap();
            file.extend(&bytes);
            read_any(&file);
        }
    }
}
