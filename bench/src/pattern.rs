//! Seeded bytes and their hash: the same seed gives the same bytes on both ends.

/// SplitMix64: every seed is a good one, and a stream can start at any word.
pub struct Random(u64);

impl Random {
    /// A stream that depends on `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in `percent` of 100 calls.
    pub fn percent(&mut self, percent: f64) -> bool {
        // 53 bits are what an f64 holds exactly.
        ((self.next() >> 11) as f64) < percent / 100.0 * (1_u64 << 53) as f64
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// 64-bit FNV-1a. Each step is a bijection of the state, so one changed byte always changes it.
pub struct Hash(u64);

impl Hash {
    /// The hash of no bytes.
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The hash as 16 hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ_by_seed() {
        let (mut a, mut b, mut c) = ([0; 33], [0; 33], [0; 33]);
        Random::new(1).fill(&mut a);
        Random::new(1).fill(&mut b);
        Random::new(2).fill(&mut c);
        assert_eq!(a, b);
        assert_ne!(a, c);
    }

    #[test]
    fn percent_is_about_right() {
        let mut random = Random::new(7);
        let hits = (0..100_000).filter(|_| random.percent(1.0)).count();
        assert!((800..1_200).contains(&hits), "{hits}");
        assert!(!Random::new(7).percent(0.0));
    }

    #[test]
    fn hash_is_fnv1a_and_sees_one_bit() {
        let mut hash = Hash::new();
        hash.add(b"a");
        assert_eq!(hash.hex(), "af63dc4c8601ec8c");
        let mut other = Hash::new();
        other.add(b"`");
        assert_ne!(hash.hex(), other.hex());
    }
}
