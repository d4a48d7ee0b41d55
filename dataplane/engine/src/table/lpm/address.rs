//! An IPv6 address as bits, bytes and words.

/// Bits of an address.
const BITS: u32 = 128;

/// Words of an address.
pub(super) const WORDS: usize = 4;

/// What the trie asks of an address.
pub(super) trait Address: Copy {
    /// Byte `index`, counted from the most significant.
    fn byte(self, index: u8) -> u8;

    /// With byte `index`, which is zero, set.
    fn with_byte(self, index: u8, byte: u8) -> Self;

    /// The first `bits` bits, the rest zero.
    fn truncated(self, bits: u8) -> Self;

    /// The first `bytes` bytes, the rest zero.
    fn head(self, bytes: u8) -> Self;

    /// Bytes at the front that `self` and `other` have in common.
    fn common_bytes(self, other: Self) -> u8;

    /// Whether the first `bits` bits are those of `words`: two for up to 64 bits, else four.
    fn begins_with(self, words: &[u32], bits: u32) -> bool;

    /// Its words: the half in front first, of each half the lower word first.
    fn words(self) -> [u32; WORDS];

    /// The address of such words; those that are missing are zero.
    fn of_words(words: &[u32]) -> Self;
}

impl Address for u128 {
    #[inline(always)]
    fn byte(self, index: u8) -> u8 {
        (self >> (BITS - 8 - 8 * u32::from(index))) as u8
    }

    fn with_byte(self, index: u8, byte: u8) -> Self {
        self | Self::from(byte) << (BITS - 8 - 8 * u32::from(index))
    }

    fn truncated(self, bits: u8) -> Self {
        match bits {
            0 => 0,
            bits => self & Self::MAX << (BITS - u32::from(bits)),
        }
    }

    fn head(self, bytes: u8) -> Self {
        self.truncated(8 * bytes)
    }

    fn common_bytes(self, other: Self) -> u8 {
        ((self ^ other).leading_zeros() / 8) as u8
    }

    #[inline(always)]
    fn begins_with(self, words: &[u32], bits: u32) -> bool {
        let half = |at: usize| u64::from(words[at + 1]) << 32 | u64::from(words[at]);
        let covered = |bits: u32| !u64::MAX.checked_shr(bits).unwrap_or(0);
        let differ = (self >> 64) as u64 ^ half(0);
        if bits <= 64 {
            return differ & covered(bits) == 0;
        }
        (differ | (self as u64 ^ half(2)) & covered(bits - 64)) == 0
    }

    fn words(self) -> [u32; WORDS] {
        let halves = [(self >> 64) as u64, self as u64];
        std::array::from_fn(|at| (halves[at / 2] >> (32 * (at % 2))) as u32)
    }

    #[inline(always)]
    fn of_words(words: &[u32]) -> Self {
        let mut address = 0;
        for (at, word) in words.iter().take(WORDS).enumerate() {
            address |= Self::from(*word) << (64 * (1 - at / 2) + 32 * (at % 2));
        }
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: u128 = 0x2001_0db8_0102_0304_0506_0708_090a_0b0c;

    #[test]
    fn every_part_is_where_it_is_looked_for() {
        assert_eq!((SAMPLE.byte(0), SAMPLE.byte(15)), (0x20, 0x0c));
        assert_eq!(SAMPLE.words()[..2], [0x0102_0304, 0x2001_0db8]);
        assert_eq!(u128::of_words(&SAMPLE.words()), SAMPLE);
        assert_eq!(u128::of_words(&SAMPLE.words()[..2]), SAMPLE.head(8));
        assert_eq!(SAMPLE.head(3).with_byte(3, 0xb8), SAMPLE.truncated(32));
    }

    #[test]
    fn comparisons_end_where_the_prefix_ends() {
        for bits in 0..128 {
            let other = SAMPLE ^ 1 << (127 - bits);
            let words = other.truncated(bits as u8).words();
            assert!(SAMPLE.begins_with(&words, bits));
            let words = other.truncated(bits as u8 + 1).words();
            assert!(!SAMPLE.begins_with(&words, bits + 1));
            let common = SAMPLE.common_bytes(other);
            assert_eq!(u32::from(common), bits / 8);
        }
    }
}
