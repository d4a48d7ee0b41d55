//! A pcapng writer: section header, interface descriptions, enhanced packets with a direction flag
//! and a comment (draft-ietf-opsawg-pcapng).

use std::io::{self, Write};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET: u16 = 1;

const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;

/// Which way a packet crossed its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Received from the port.
    Inbound,
    /// Sent out by the port.
    Outbound,
}

/// One packet of a capture.
pub struct Record<'a> {
    /// Number of the interface, in the order of [`Writer::interface`].
    pub interface: u32,
    /// Nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Length on the wire, in bytes.
    pub original_len: u32,
    /// The bytes kept.
    pub bytes: &'a [u8],
    /// Which way.
    pub direction: Direction,
    /// What the pipeline decided.
    pub comment: &'a str,
}

/// Writes one section.
pub struct Writer<W> {
    out: W,
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Starts a section that says it was written by `application`.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn new(out: W, application: &str) -> io::Result<Self> {
        let mut writer = Self {
            out,
            block: Vec::with_capacity(2048),
        };
        writer.put_u32(BYTE_ORDER_MAGIC);
        writer.put_u16(1);
        writer.put_u16(0);
        writer.block.extend_from_slice(&u64::MAX.to_le_bytes());
        writer.option(SHB_USERAPPL, application.as_bytes());
        writer.option(OPT_END, &[]);
        writer.flush_block(SECTION_HEADER)?;
        Ok(writer)
    }

    /// Describes the next interface; they are numbered from 0.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn interface(&mut self, name: &str, description: &str, snaplen: u32) -> io::Result<()> {
        self.put_u16(LINKTYPE_ETHERNET);
        self.put_u16(0);
        self.put_u32(snaplen);
        self.option(IF_NAME, name.as_bytes());
        self.option(IF_DESCRIPTION, description.as_bytes());
        self.option(IF_TSRESOL, &[9]);
        self.option(OPT_END, &[]);
        self.flush_block(INTERFACE_DESCRIPTION)
    }

    /// Writes one packet.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn packet(&mut self, record: &Record<'_>) -> io::Result<()> {
        self.put_u32(record.interface);
        self.put_u32((record.time_ns >> 32) as u32);
        self.put_u32(record.time_ns as u32);
        self.put_u32(record.bytes.len() as u32);
        self.put_u32(record.original_len);
        self.block.extend_from_slice(record.bytes);
        self.pad();
        let flags: u32 = match record.direction {
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        };
        self.option(EPB_FLAGS, &flags.to_le_bytes());
        if !record.comment.is_empty() {
            self.option(OPT_COMMENT, record.comment.as_bytes());
        }
        self.option(OPT_END, &[]);
        self.flush_block(ENHANCED_PACKET)
    }

    /// Hands what was written to the reader.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn put_u16(&mut self, value: u16) {
        self.block.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.block.extend_from_slice(&value.to_le_bytes());
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.put_u16(code);
        self.put_u16(value.len() as u16);
        self.block.extend_from_slice(value);
        self.pad();
    }

    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn flush_block(&mut self, kind: u32) -> io::Result<()> {
        let total = (self.block.len() + 12) as u32;
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&total.to_le_bytes())?;
        self.out.write_all(&self.block)?;
        self.out.write_all(&total.to_le_bytes())?;
        self.block.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_padded_and_framed_by_their_length() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, "weft").unwrap();
        writer.interface("weft0p", "node", 96).unwrap();
        let record = Record {
            interface: 0,
            time_ns: 1 << 33,
            original_len: 100,
            bytes: &[1, 2, 3, 4, 5],
            direction: Direction::Outbound,
            comment: "drop: no-endpoint",
        };
        writer.packet(&record).unwrap();
        let mut rest = bytes.as_slice();
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let total = word(4) as usize;
            assert_eq!(total % 4, 0);
            assert_eq!(word(total - 4) as usize, total);
            kinds.push(word(0));
            rest = &rest[total..];
        }
        assert_eq!(
            kinds,
            [SECTION_HEADER, INTERFACE_DESCRIPTION, ENHANCED_PACKET]
        );
    }
}
