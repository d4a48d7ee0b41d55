//! Capture files, pcap and pcapng, packet by packet.
//!
//! What such a file says is believed only as far as it goes: a wrong length is an error with its place, and no length
//! makes the reader take more than `BLOCK_BYTES_MAX`.

use std::io::Read;

use pcap_parser::pcapng::{Block, OptionCode, PcapNGOption};
use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{Linktype, PcapBlockOwned, PcapError, create_reader};

/// Longest block or record believed: the largest frame and its options are far below.
const BLOCK_BYTES_MAX: usize = 1 << 20;

/// Option of an enhanced packet: which way it went (draft-ietf-opsawg-pcapng, section 4.3).
const EPB_FLAGS: OptionCode = OptionCode(2);

/// Bits of that option, and the value of what was sent.
const DIRECTION_MASK: u32 = 0b11;
const OUTBOUND: u32 = 0b10;

/// Why a file, or the rest of it, cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CaptureFileError {
    /// It is something else.
    #[error("it is neither pcap nor pcapng")]
    Other,
    /// It is broken, or was cut off.
    #[error("broken at byte {offset}: {what}")]
    Broken {
        /// Where the block begins that cannot be read.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
}

/// A packet of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedPacket {
    /// Its number in the file, from 1.
    pub number: u64,
    /// Where its block begins.
    pub offset: u64,
    /// Name of the interface it was captured at, where the file says so.
    pub interface: Option<String>,
    /// It was sent out of the interface.
    pub outbound: bool,
    /// Its length when it was captured: its bytes may be fewer.
    pub original_len: u32,
    /// The frame.
    pub bytes: Vec<u8>,
}

/// An interface of a pcapng file.
struct Interface {
    name: Option<String>,
    linktype: Linktype,
}

/// Reads one file.
pub struct CaptureFile<'a> {
    reader: Box<dyn PcapReaderIterator + Send + 'a>,
    interfaces: Vec<Interface>,
    packets: u64,
    is_over: bool,
}

impl<'a> CaptureFile<'a> {
    /// Looks at the beginning of a file.
    ///
    /// # Errors
    /// See [`CaptureFileError`].
    pub fn open(file: impl Read + Send + 'a) -> Result<Self, CaptureFileError> {
        // One more than the longest, since the reader asks for room behind what it needs.
        let reader = create_reader(BLOCK_BYTES_MAX + 1, file).map_err(|error| match error {
            PcapError::ReadError => broken(0, "it cannot be read"),
            _ => CaptureFileError::Other,
        })?;
        Ok(Self {
            reader,
            interfaces: Vec::new(),
            packets: 0,
            is_over: false,
        })
    }

    /// The next packet; none at the end.
    ///
    /// # Errors
    /// See [`CaptureFileError`]; nothing follows it.
    pub fn packet(&mut self) -> Result<Option<CapturedPacket>, CaptureFileError> {
        while !self.is_over {
            let read = self.block();
            self.is_over |= read.is_err();
            if let Some(packet) = read? {
                return Ok(Some(packet));
            }
        }
        Ok(None)
    }

    /// Goes over one block, or reads on; the packet if it is one.
    fn block(&mut self) -> Result<Option<CapturedPacket>, CaptureFileError> {
        let offset = self.reader.consumed() as u64;
        let (len, found) = match self.reader.next() {
            Ok((len, block)) => {
                let known = &mut self.interfaces;
                (
                    len,
                    take(known, &block).map_err(|what| broken(offset, what))?,
                )
            }
            Err(PcapError::Incomplete(_)) => {
                let read = self.reader.refill();
                return read
                    .map(|()| None)
                    .map_err(|_| broken(offset, "it cannot be read"));
            }
            Err(PcapError::Eof) => {
                self.is_over = true;
                return Ok(None);
            }
            Err(error) => return Err(broken(offset, reason(&error))),
        };
        self.reader.consume(len);
        Ok(found.map(|packet| {
            self.packets += 1;
            CapturedPacket {
                number: self.packets,
                offset,
                ..packet
            }
        }))
    }
}

fn broken(offset: u64, what: impl Into<String>) -> CaptureFileError {
    let what = what.into();
    CaptureFileError::Broken { offset, what }
}

fn reason(error: &PcapError<&[u8]>) -> &'static str {
    match error {
        PcapError::UnexpectedEof => "the file ends in the middle of it",
        PcapError::BufferTooSmall => "it says that it is longer than a packet can be",
        _ => "its lengths or its fields make no sense",
    }
}

/// The packet of a block, or what it says about those to come.
fn take(
    interfaces: &mut Vec<Interface>,
    block: &PcapBlockOwned<'_>,
) -> Result<Option<CapturedPacket>, String> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let linktype = header.network;
            *interfaces = vec![Interface {
                name: None,
                linktype,
            }];
        }
        PcapBlockOwned::Legacy(record) => {
            return packet(interfaces, 0, record.origlen, record.data, false).map(Some);
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => interfaces.clear(),
        PcapBlockOwned::NG(Block::InterfaceDescription(described)) => {
            let name = described.if_name().and_then(Result::ok);
            interfaces.push(Interface {
                name: name.map(str::to_owned),
                linktype: described.linktype,
            });
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(block)) => {
            if block.caplen as usize > block.data.len() {
                return Err("its packet is longer than itself".to_owned());
            }
            let outbound = is_outbound(&block.options, block.big_endian());
            let (id, bytes) = (block.if_id, block.packet_data());
            return packet(interfaces, id, block.origlen, bytes, outbound).map(Some);
        }
        PcapBlockOwned::NG(Block::SimplePacket(block)) => {
            return packet(interfaces, 0, block.origlen, block.packet_data(), false).map(Some);
        }
        PcapBlockOwned::NG(_) => {}
    }
    Ok(None)
}

fn packet(
    interfaces: &[Interface],
    id: u32,
    original_len: u32,
    bytes: &[u8],
    outbound: bool,
) -> Result<CapturedPacket, String> {
    let found = interfaces.get(id as usize);
    let interface = found.ok_or_else(|| format!("no interface {id} was described before it"))?;
    if interface.linktype != Linktype::ETHERNET {
        let linktype = interface.linktype.0;
        return Err(format!(
            "its link type is {linktype}; only Ethernet (1) is understood"
        ));
    }
    Ok(CapturedPacket {
        number: 0,
        offset: 0,
        interface: interface.name.clone(),
        outbound,
        original_len,
        bytes: bytes.to_vec(),
    })
}

fn is_outbound(options: &[PcapNGOption<'_>], big_endian: bool) -> bool {
    let flags = options.iter().find(|option| option.code == EPB_FLAGS);
    let bytes = flags.and_then(|option| option.as_bytes().ok()?.try_into().ok());
    let flags = bytes.map(|bytes: [u8; 4]| match big_endian {
        true => u32::from_be_bytes(bytes),
        false => u32::from_le_bytes(bytes),
    });
    flags.is_some_and(|flags| flags & DIRECTION_MASK == OUTBOUND)
}

/// Reads `bytes` as a capture file to its end; must never panic, whatever they are.
pub fn read_any(bytes: &[u8]) {
    let Ok(mut file) = CaptureFile::open(bytes) else {
        return;
    };
    while let Ok(Some(packet)) = file.packet() {
        assert!(packet.bytes.len() <= bytes.len() && packet.offset < bytes.len() as u64);
    }
}
