//! The bytes of a flow table: one region that can be handed to the next process.
//!
//! ```text
//!  header │ hot: a line per entry │ cold │ IPv4 tuples │ IPv6 tuples │ neighbours │ index
//! ```
//!
//! Entries below `flows` are of IPv4, those from there to twice as many of IPv6; the two are never used
//! up together, since the table holds at most `flows` in all. The region is zero at first and is touched
//! only where entries are used, lowest numbers first, so its size costs address space and not memory.
//!
//! Whatever is read from the region as a place in it is a [`Number`] only after its range was checked.

use weft_xsk::Region;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute_mut, transmute_ref};

use super::entry::{Cold, Hot, Neighbour, Pair4, Pair6};

/// "weftflow".
const MAGIC: [u32; 2] = [0x7765_6674, 0x666c_6f77];

/// Changes with every change of what bytes mean; another version's region is not read.
const LAYOUT_VERSION: u32 = 3;

/// Connections a table can be made for: slots of the index hold 22 bits of entry number, and there are
/// as many numbers for each family.
pub const FLOWS_MAX: u32 = (1 << 21) - 1;

/// Words of a cache line.
const LINE_WORDS: usize = 16;

/// Slots of the index. A translated connection takes two, so that at worst seven tenths are taken, where a search for
/// nothing looks at six slots; without translation it is a third. Three for each connection would make 128 bytes of it
/// without the ends of pages, which are not to be more.
const fn slots(flows: u32) -> u32 {
    3 * flows - flows / 8
}

/// What stands at the start of the region.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Header {
    magic: [u32; 2],
    version: u32,
    /// Connections the table is made for.
    flows: u32,
    seed: [u32; 2],
    /// Entries of each family ever used: those beyond are still zero.
    pub(super) used: [u32; 2],
    reserved: [u32; 8],
}

const _: () = assert!(size_of::<Header>() == 4 * LINE_WORDS);

/// Family of an entry, and its place in arrays of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

/// An entry that exists: its range was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number(u32);

impl Number {
    #[inline]
    pub(super) const fn raw(self) -> u32 {
        self.0
    }
}

/// Why a region cannot be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryError {
    /// It holds something else, or nothing.
    NotFlows,
    /// It was written by another version.
    Version(u32),
    /// It is shorter than its header says, or the header says what cannot be.
    Size,
}

impl std::fmt::Display for MemoryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFlows => write!(f, "the memory holds no flow table"),
            Self::Version(version) => {
                write!(
                    f,
                    "the flow table has layout {version}, not {LAYOUT_VERSION}"
                )
            }
            Self::Size => write!(f, "the flow table's memory is shorter than its header says"),
        }
    }
}

impl std::error::Error for MemoryError {}

/// Where the parts of a region are, in words. 32 bits hold them, and so no place computed from them leaves `usize`.
#[derive(Clone, Copy, Debug)]
struct Layout {
    hot: u32,
    cold: u32,
    pairs4: u32,
    pairs6: u32,
    neighbours: u32,
    index: u32,
    end: u32,
    flows: u32,
}

impl Layout {
    /// Parts in order, each from a line's start.
    const fn new(flows: u32) -> Self {
        let hot = LINE_WORDS as u32;
        let cold = hot + part(2 * flows * words_of::<Hot>());
        let pairs4 = cold + part(2 * flows * words_of::<Cold>());
        let pairs6 = pairs4 + part(flows * words_of::<Pair4>());
        let neighbours = pairs6 + part(flows * words_of::<Pair6>());
        let index = neighbours + part(2 * flows * words_of::<Neighbour>());
        Self {
            hot,
            cold,
            pairs4,
            pairs6,
            neighbours,
            index,
            end: index + slots(flows),
            flows,
        }
    }
}

const fn bounded(flows: u32) -> u32 {
    match flows {
        0 => 1,
        FLOWS_MAX.. => FLOWS_MAX,
        flows => flows,
    }
}

const fn words_of<T>() -> u32 {
    (size_of::<T>() / size_of::<u32>()) as u32
}

const fn part(words: u32) -> u32 {
    words.next_multiple_of(LINE_WORDS as u32)
}

/// The region; see the module's text.
pub struct FlowMemory {
    words: Region,
    layout: Layout,
}

macro_rules! part_of_entry {
    ($get:ident, $get_mut:ident, $type:ty, $part:ident, $first:expr) => {
        #[inline(always)]
        pub(super) fn $get(&self, number: Number) -> &$type {
            const LEN: usize = words_of::<$type>() as usize;
            let at = self.layout.$part as usize + self.place(number, $first) * LEN;
            match self
                .words
                .get(at..at + LEN)
                .and_then(<[u32]>::first_chunk::<LEN>)
            {
                Some(words) => transmute_ref!(words),
                None => unreachable!("a number was checked when it was made"),
            }
        }

        #[inline(always)]
        pub(super) fn $get_mut(&mut self, number: Number) -> &mut $type {
            const LEN: usize = words_of::<$type>() as usize;
            let at = self.layout.$part as usize + self.place(number, $first) * LEN;
            let words = self.words.get_mut(at..at + LEN);
            match words.and_then(<[u32]>::first_chunk_mut::<LEN>) {
                Some(words) => transmute_mut!(words),
                None => unreachable!("a number was checked when it was made"),
            }
        }
    };
}

impl FlowMemory {
    /// A region of this process for an empty table of `flows` connections, at least 1 and at most
    /// [`FLOWS_MAX`]. `seed` must be random and secret.
    ///
    /// # Panics
    /// When the process has no address space left, as any allocation does.
    pub fn new(flows: u32, seed: u64) -> Self {
        let region = Region::anonymous(Self::bytes(flows));
        let made = region.map_err(|error| error.to_string());
        match made.and_then(|region| Self::within(region, flows).map_err(|it| it.to_string())) {
            Ok(mut memory) => {
                memory.begin(seed);
                memory
            }
            Err(error) => unreachable!("a region for {flows} connections: {error}"),
        }
    }

    /// Bytes of the region for a table of `flows` connections, taken within [`FlowMemory::new`]'s bounds.
    pub const fn bytes(flows: u32) -> usize {
        Layout::new(bounded(flows)).end as usize * size_of::<u32>()
    }

    /// A region for `flows` connections that may hold a table already: see [`FlowTable::recover`], or
    /// [`FlowMemory::begin`] for one that is all zero.
    ///
    /// # Errors
    /// [`MemoryError::Size`] when it is shorter than [`FlowMemory::bytes`].
    ///
    /// [`FlowTable::recover`]: super::FlowTable::recover
    pub fn within(region: Region, flows: u32) -> Result<Self, MemoryError> {
        let layout = Layout::new(bounded(flows));
        if region.len() < layout.end as usize {
            return Err(MemoryError::Size);
        }
        Ok(Self {
            words: region,
            layout,
        })
    }

    /// Says that an empty table begins here. The region must be all zero.
    pub fn begin(&mut self, seed: u64) {
        *self.header_mut() = Header {
            magic: MAGIC,
            version: LAYOUT_VERSION,
            flows: self.layout.flows,
            seed: [seed as u32, (seed >> 32) as u32],
            used: [0; 2],
            reserved: [0; 8],
        };
    }

    /// Checks whether another process left a table here.
    ///
    /// # Errors
    /// [`MemoryError`] when the header is not of such a table.
    pub fn check(&self) -> Result<(), MemoryError> {
        let header = self.header();
        if header.magic != MAGIC {
            return Err(MemoryError::NotFlows);
        }
        if header.version != LAYOUT_VERSION {
            return Err(MemoryError::Version(header.version));
        }
        let used = header.used.iter().all(|used| *used <= self.layout.flows);
        if header.flows != self.layout.flows || !used {
            return Err(MemoryError::Size);
        }
        Ok(())
    }

    /// Bytes of the region.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        self.words[..self.layout.end as usize].as_mut_bytes()
    }

    /// Connections it has room for.
    pub const fn flows(&self) -> u32 {
        self.layout.flows
    }

    pub(super) fn seed(&self) -> u64 {
        let [low, high] = self.header().seed;
        u64::from(high) << 32 | u64::from(low)
    }

    /// The entry of a number from the region, if there is one.
    #[inline]
    pub(super) const fn number(&self, raw: u32) -> Option<Number> {
        if raw < 2 * self.layout.flows {
            Some(Number(raw))
        } else {
            None
        }
    }

    /// As [`FlowMemory::number`], if it is of that family.
    #[inline(always)]
    pub(super) const fn number_among(&self, family: Family, raw: u32) -> Option<Number> {
        let place = raw.wrapping_sub(family as u32 * self.layout.flows);
        if place < self.layout.flows {
            Some(Number(raw))
        } else {
            None
        }
    }

    /// The entry at `place` among those of its family.
    #[inline]
    pub(super) fn number_of(&self, family: Family, place: u32) -> Option<Number> {
        let first = family as u32 * self.layout.flows;
        (place < self.layout.flows).then_some(Number(first + place))
    }

    #[inline]
    pub(super) const fn family(&self, number: Number) -> Family {
        if number.0 < self.layout.flows {
            Family::V4
        } else {
            Family::V6
        }
    }

    part_of_entry!(hot, hot_mut, Hot, hot, 0);
    part_of_entry!(cold, cold_mut, Cold, cold, 0);
    part_of_entry!(pair4, pair4_mut, Pair4, pairs4, 0);
    part_of_entry!(pair6, pair6_mut, Pair6, pairs6, 1);
    part_of_entry!(neighbour, neighbour_mut, Neighbour, neighbours, 0);

    /// The slots of the index.
    #[inline]
    pub(super) fn slots(&self) -> &[u32] {
        &self.words[self.layout.index as usize..self.layout.end as usize]
    }

    #[inline]
    pub(super) fn slots_mut(&mut self) -> &mut [u32] {
        &mut self.words[self.layout.index as usize..self.layout.end as usize]
    }

    pub(super) fn header(&self) -> &Header {
        match self.words.first_chunk::<LINE_WORDS>() {
            Some(words) => transmute_ref!(words),
            None => unreachable!("a region begins with its header"),
        }
    }

    pub(super) fn header_mut(&mut self) -> &mut Header {
        match self.words.first_chunk_mut::<LINE_WORDS>() {
            Some(words) => transmute_mut!(words),
            None => unreachable!("a region begins with its header"),
        }
    }

    /// Place of an entry in a part that begins with the entries of family `first`.
    #[inline(always)]
    const fn place(&self, number: Number, first: u32) -> usize {
        debug_assert!(
            number.0 >= first * self.layout.flows,
            "an entry of this family"
        );
        (number.0 - first * self.layout.flows) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_stays_within_its_bytes() {
        let (hot, cold) = (size_of::<Hot>(), size_of::<Cold>());
        let index = slots(1000) as usize * size_of::<u32>() / 1000;
        assert!(hot + cold + size_of::<Pair4>() + index <= 128);
        assert!(hot + cold + size_of::<Pair6>() + index <= 224);
    }

    #[test]
    fn entries_begin_with_lines() {
        let memory = FlowMemory::new(100, 1);
        let number = memory.number(150).expect("an entry");
        assert_eq!(std::ptr::from_ref(memory.hot(number)).align_offset(64), 0);
        assert_eq!((memory.seed(), memory.check()), (1, Ok(())));
    }

    #[test]
    fn numbers_beyond_the_region_are_none() {
        let memory = FlowMemory::new(100, 1);
        assert!(memory.number(199).is_some() && memory.number(200).is_none());
        assert!(memory.number(u32::MAX).is_none());
        assert_eq!(memory.number_of(Family::V6, 99), memory.number(199));
        assert_eq!(memory.number_of(Family::V4, 100), None);
    }

    #[test]
    fn another_header_is_refused() {
        for (word, error) in [
            (0, MemoryError::NotFlows),
            (2, MemoryError::Version(9)),
            (3, MemoryError::Size),
            (6, MemoryError::Size),
        ] {
            let mut memory = FlowMemory::new(8, 1);
            let bytes = memory.as_bytes_mut();
            bytes[4 * word..][..4].copy_from_slice(&9_u32.to_ne_bytes());
            assert_eq!(memory.check(), Err(error));
        }
    }
}
