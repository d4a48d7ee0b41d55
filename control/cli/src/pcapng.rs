//! Cuts a pcapng stream into blocks, so that a capture that ends at any moment leaves a valid file.

/// Type, length and trailing length of a block (draft-ietf-opsawg-pcapng, section 3.1).
const FRAMING_BYTES: usize = 12;
/// Longest block believed: the largest frame and its options are far below.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// A block that holds a packet.
const ENHANCED_PACKET: u32 = 6;

/// The stream is not pcapng, or not in the dataplane's byte order (always little-endian).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the dataplane sent a block of {0} bytes, which no pcapng block is")]
pub struct NotPcapng(usize);

/// Bytes that wait for the rest of their block.
#[derive(Debug, Default)]
pub struct Blocks {
    pending: Vec<u8>,
}

/// Whole blocks, and how many of them are packets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// The blocks, ready to be written.
    pub bytes: Vec<u8>,
    /// Packets among them.
    pub packets: u64,
}

impl Blocks {
    /// Takes what was received, gives the blocks that are complete.
    pub fn push(&mut self, received: &[u8]) -> Result<Whole, NotPcapng> {
        self.pending.extend_from_slice(received);
        let (mut end, mut packets) = (0, 0);
        while let Some((kind, length)) = header(&self.pending[end..]) {
            if !(FRAMING_BYTES..=BLOCK_BYTES_MAX).contains(&length) || length % 4 != 0 {
                return Err(NotPcapng(length));
            }
            if self.pending.len() - end < length {
                break;
            }
            packets += u64::from(kind == ENHANCED_PACKET);
            end += length;
        }
        let bytes = self.pending.drain(..end).collect();
        Ok(Whole { bytes, packets })
    }
}

fn header(bytes: &[u8]) -> Option<(u32, usize)> {
    let word = |at: usize| {
        let word = bytes.get(at..at + 4)?;
        word.try_into().ok().map(u32::from_le_bytes)
    };
    Some((word(0)?, word(4)? as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(kind: u32, body: usize) -> Vec<u8> {
        let length = (FRAMING_BYTES + body) as u32;
        let mut block = kind.to_le_bytes().to_vec();
        block.extend(length.to_le_bytes());
        block.extend(vec![0xaa; body]);
        block.extend(length.to_le_bytes());
        block
    }

    #[test]
    fn blocks_come_out_whole_however_the_stream_is_cut() {
        let stream = [
            block(0x0a0d_0d0a, 16),
            block(1, 8),
            block(6, 100),
            block(6, 0),
        ]
        .concat();
        for cut in 1..stream.len() {
            let mut blocks = Blocks::default();
            let (mut bytes, mut packets) = (Vec::new(), 0);
            for piece in stream.chunks(cut) {
                let whole = blocks.push(piece).unwrap();
                bytes.extend(whole.bytes);
                packets += whole.packets;
            }
            assert_eq!((&bytes, packets), (&stream, 2), "cut at {cut}");
        }
    }

    #[test]
    fn half_a_block_is_held_back() {
        let mut blocks = Blocks::default();
        assert_eq!(blocks.push(&block(6, 40)[..30]), Ok(Whole::default()));
    }

    #[test]
    fn other_streams_are_refused() {
        for length in [0_u32, 8, 13, 2 << 20] {
            let mut stream = 6_u32.to_le_bytes().to_vec();
            stream.extend(length.to_le_bytes());
            assert!(Blocks::default().push(&stream).is_err(), "{length}");
        }
    }
}
