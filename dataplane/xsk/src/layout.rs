//! What lies where in the memory that outlives a dataplane process.
//!
//! ```text
//! 0        page 1                    2 MiB aligned
//! | header | owner table | ... later sections ... | chunks: frames x 4096 bytes |
//! ```
//!
//! The header names each section by kind, so that a newer dataplane can add sections and an older one skips
//! those it does not know. Numbers are native-endian u32/u64; nothing in it is a pointer. A mapping process trusts
//! nothing: [`Layout::read`] checks every field against the size of the file.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::frame::{FRAME_BYTES, FRAMES_MAX};

/// First bytes of the memory: "weftumem".
pub const MAGIC: u64 = u64::from_ne_bytes(*b"weftumem");

/// Raised when an existing field or section changes its meaning; sections are added without raising it.
pub const VERSION: u32 = 1;

/// Sections the header can name.
pub const SECTIONS_MAX: usize = 32;

/// Chunks start at a multiple of this, so that huge pages can back them.
pub const CHUNK_ALIGN: u64 = 2 << 20;

const PAGE: u64 = 4096;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SectionKind {
    /// One u32 per frame, see [`crate::owner`].
    Owners = 1,
    /// The chunks: what the kernel registers as UMEM.
    Chunks = 2,
}

/// Place of one section, in bytes from the start of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Section {
    /// A [`SectionKind`], or one this version does not know; 0 marks an unused place.
    pub kind: u32,
    /// Version of the section's own content.
    pub version: u32,
    /// Where it starts.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
}

/// The first bytes of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// Bytes of a chunk.
    pub frame_bytes: u32,
    /// Number of chunks.
    pub frames: u32,
    /// Zero.
    pub pad: u32,
    /// Size of the whole memory.
    pub total_bytes: u64,
    /// The sections, unused ones zero.
    pub sections: [Section; SECTIONS_MAX],
}

const _: () =
    assert!(size_of::<Header>() == 32 + SECTIONS_MAX * 24 && size_of::<Header>() as u64 <= PAGE);

/// Why memory is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Shorter than a header.
    #[error("{0} bytes are too few for a header")]
    TooShort(u64),
    /// Starts with something else.
    #[error("magic number {0:#x} is not that of a frame memory")]
    Magic(u64),
    /// Written by a version that cannot be read.
    #[error("layout version {0} is not {VERSION}")]
    Version(u32),
    /// Chunks of another size.
    #[error("chunks of {0} bytes, {FRAME_BYTES} expected")]
    FrameBytes(u32),
    /// No frames, or too many.
    #[error("{0} frames, 1 to {FRAMES_MAX} expected")]
    Frames(u32),
    /// The header's size is not the memory's.
    #[error("header says {header} bytes, there are {actual}")]
    Size {
        /// What the header says.
        header: u64,
        /// What there is.
        actual: u64,
    },
    /// A needed section is missing, misplaced or too small.
    #[error("section {0:?} is missing, misaligned, too small or outside the memory")]
    Section(SectionKind),
    /// Two sections share bytes.
    #[error("sections overlap")]
    Overlap,
}

/// Checked geometry of a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Number of chunks.
    pub frames: u32,
    /// Size of the whole memory.
    pub total_bytes: u64,
    /// Where the owner table starts.
    pub owners_offset: u64,
    /// Where the chunks start.
    pub chunks_offset: u64,
}

impl Layout {
    /// Plans a memory of `frames` chunks that start at a multiple of `chunk_align`.
    ///
    /// # Errors
    /// [`LayoutError::Frames`] when there are none or too many.
    pub fn plan(frames: u32, chunk_align: u64) -> Result<Self, LayoutError> {
        if frames == 0 || frames > FRAMES_MAX {
            return Err(LayoutError::Frames(frames));
        }
        let owners_offset = PAGE;
        let chunks_offset =
            (owners_offset + u64::from(frames) * 4).next_multiple_of(chunk_align.max(PAGE));
        let total_bytes = (chunks_offset + u64::from(frames) * FRAME_BYTES as u64)
            .next_multiple_of(chunk_align.max(PAGE));
        Ok(Self {
            frames,
            total_bytes,
            owners_offset,
            chunks_offset,
        })
    }

    /// The header that says so.
    pub fn header(&self) -> Header {
        let unused = Section {
            kind: 0,
            version: 0,
            offset: 0,
            bytes: 0,
        };
        let section = |kind: SectionKind, offset, bytes| Section {
            kind: kind as u32,
            version: 1,
            offset,
            bytes,
        };
        let mut sections = [unused; SECTIONS_MAX];
        sections[0] = section(
            SectionKind::Owners,
            self.owners_offset,
            u64::from(self.frames) * 4,
        );
        sections[1] = section(
            SectionKind::Chunks,
            self.chunks_offset,
            u64::from(self.frames) * FRAME_BYTES as u64,
        );
        Header {
            magic: MAGIC,
            version: VERSION,
            frame_bytes: FRAME_BYTES as u32,
            frames: self.frames,
            pad: 0,
            total_bytes: self.total_bytes,
            sections,
        }
    }

    /// Reads and checks the header at the start of a memory of `actual` bytes.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn read(bytes: &[u8], actual: u64) -> Result<Self, LayoutError> {
        let (header, _) =
            Header::read_from_prefix(bytes).map_err(|_| LayoutError::TooShort(actual))?;
        if header.magic != MAGIC {
            return Err(LayoutError::Magic(header.magic));
        }
        if header.version != VERSION {
            return Err(LayoutError::Version(header.version));
        }
        if header.frame_bytes != FRAME_BYTES as u32 {
            return Err(LayoutError::FrameBytes(header.frame_bytes));
        }
        if header.frames == 0 || header.frames > FRAMES_MAX {
            return Err(LayoutError::Frames(header.frames));
        }
        if header.total_bytes != actual {
            return Err(LayoutError::Size {
                header: header.total_bytes,
                actual,
            });
        }
        let owners = find(&header, SectionKind::Owners, u64::from(header.frames) * 4)?;
        let chunks = find(
            &header,
            SectionKind::Chunks,
            u64::from(header.frames) * FRAME_BYTES as u64,
        )?;
        let disjoint = owners.offset + owners.bytes <= chunks.offset
            || chunks.offset + chunks.bytes <= owners.offset;
        if !disjoint {
            return Err(LayoutError::Overlap);
        }
        Ok(Self {
            frames: header.frames,
            total_bytes: actual,
            owners_offset: owners.offset,
            chunks_offset: chunks.offset,
        })
    }
}

fn find(header: &Header, kind: SectionKind, bytes: u64) -> Result<Section, LayoutError> {
    let fits = |section: &&Section| {
        section.kind == kind as u32
            && section.offset >= PAGE
            && section.offset.is_multiple_of(PAGE)
            && section.bytes >= bytes
            && section
                .offset
                .checked_add(section.bytes)
                .is_some_and(|end| end <= header.total_bytes)
    };
    header
        .sections
        .iter()
        .find(fits)
        .copied()
        .ok_or(LayoutError::Section(kind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> (Layout, Header) {
        let layout = Layout::plan(12_288, CHUNK_ALIGN).unwrap();
        (layout, layout.header())
    }

    #[test]
    fn a_plan_reads_back() {
        let (layout, header) = sample();
        assert_eq!(
            Layout::read(header.as_bytes(), layout.total_bytes),
            Ok(layout)
        );
        assert_eq!(layout.chunks_offset % CHUNK_ALIGN, 0);
        assert_eq!(layout.total_bytes, (48 << 20) + CHUNK_ALIGN);
    }

    #[test]
    fn unknown_sections_are_skipped() {
        let (layout, mut header) = sample();
        header.sections[2] = Section {
            kind: 77,
            version: 3,
            offset: 1,
            bytes: u64::MAX,
        };
        assert_eq!(
            Layout::read(header.as_bytes(), layout.total_bytes),
            Ok(layout)
        );
    }

    #[test]
    fn each_wrong_field_is_named() {
        type Damage = fn(&mut Header);
        let cases: [(Damage, LayoutError); 8] = [
            (|h| h.magic = 1, LayoutError::Magic(1)),
            (|h| h.version = 9, LayoutError::Version(9)),
            (|h| h.frame_bytes = 2048, LayoutError::FrameBytes(2048)),
            (|h| h.frames = 0, LayoutError::Frames(0)),
            (|h| h.frames = u32::MAX, LayoutError::Frames(u32::MAX)),
            (
                |h| h.sections[0].bytes -= 1,
                LayoutError::Section(SectionKind::Owners),
            ),
            (
                |h| h.sections[1].offset = !4095,
                LayoutError::Section(SectionKind::Chunks),
            ),
            (
                |h| h.sections[0].offset = h.sections[1].offset,
                LayoutError::Overlap,
            ),
        ];
        for (damage, error) in cases {
            let (layout, mut header) = sample();
            damage(&mut header);
            assert_eq!(
                Layout::read(header.as_bytes(), layout.total_bytes),
                Err(error)
            );
        }
        let (layout, header) = sample();
        let actual = layout.total_bytes + 1;
        let error = LayoutError::Size {
            header: layout.total_bytes,
            actual,
        };
        assert_eq!(Layout::read(header.as_bytes(), actual), Err(error));
        assert_eq!(Layout::read(&[0; 8], 8), Err(LayoutError::TooShort(8)));
    }

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "no unsafe code, and slow")]
        fn what_is_accepted_lies_inside(
            damage in proptest::collection::vec((0..size_of::<Header>(), any::<u8>()), 1..6),
        ) {
            let (layout, header) = sample();
            let mut bytes = header.as_bytes().to_vec();
            for (at, value) in damage {
                bytes[at] = value;
            }
            if let Ok(read) = Layout::read(&bytes, layout.total_bytes) {
                let owners_end = read.owners_offset + u64::from(read.frames) * 4;
                let chunks_end = read.chunks_offset + u64::from(read.frames) * FRAME_BYTES as u64;
                prop_assert!(owners_end <= layout.total_bytes && chunks_end <= layout.total_bytes);
                prop_assert!(owners_end <= read.chunks_offset || chunks_end <= read.owners_offset);
            }
        }
    }
}
