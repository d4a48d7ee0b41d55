//! The prefixes that end in one byte of the address, and the slots of that byte each of them covers.

use std::ops::Range;

/// A prefix within its byte: its first `bits` bits, at least 1 but for the prefix of no length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) value: u32,
    pub(super) bits: u8,
    pub(super) byte: u8,
}

impl Prefix {
    /// The slots that begin with it.
    pub(super) fn slots(self) -> Range<usize> {
        let first = usize::from(self.byte);
        first..first + (256 >> self.bits)
    }
}

/// Prefixes by length and byte, shortest first, so that the longer ones overwrite.
#[derive(Clone, Default)]
pub(super) struct Prefixes(Vec<Prefix>);

impl Prefixes {
    /// Prefixes in their order.
    pub(super) const fn of(prefixes: Vec<Prefix>) -> Self {
        Self(prefixes)
    }

    pub(super) fn as_slice(&self) -> &[Prefix] {
        &self.0
    }

    pub(super) fn find(&self, bits: u8, byte: u8) -> Option<u32> {
        let at = self.position(bits, byte).ok()?;
        Some(self.0[at].value)
    }

    /// Adds, replaces or, with the value 0, removes a prefix. Returns the value it had.
    pub(super) fn set(&mut self, prefix: Prefix) -> Option<u32> {
        match (self.position(prefix.bits, prefix.byte), prefix.value) {
            (Ok(at), 0) => Some(self.0.remove(at).value),
            (Ok(at), value) => Some(std::mem::replace(&mut self.0[at].value, value)),
            (Err(_), 0) => None,
            (Err(at), _) => {
                self.0.insert(at, prefix);
                None
            }
        }
    }

    /// Says what the slots that `changed` covers hold now: calls `write` for ranges of them, later calls
    /// overwriting earlier ones.
    pub(super) fn fill(&self, changed: Prefix, mut write: impl FnMut(Range<usize>, u32)) {
        let span = changed.slots();
        write(span.clone(), 0);
        for prefix in &self.0 {
            let slots = prefix.slots();
            let common = slots.start.max(span.start)..slots.end.min(span.end);
            if !common.is_empty() {
                write(common, prefix.value);
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.0.capacity() * size_of::<Prefix>()
    }

    fn position(&self, bits: u8, byte: u8) -> Result<usize, usize> {
        self.0
            .binary_search_by_key(&(bits, byte), |it| (it.bits, it.byte))
    }
}

/// The byte a prefix of `len` bits ends in, and its place there: /8 ends in byte 0, /9 in byte 1, /0 in
/// byte 0 with no bit of it.
pub(super) const fn place(len: u8) -> (u8, u8) {
    let depth = len.saturating_sub(1) / 8;
    (depth, len - 8 * depth)
}

/// The first `bits` bits of a byte.
pub(super) const fn masked(byte: u8, bits: u8) -> u8 {
    byte & (0xff00_u16 >> bits) as u8
}
