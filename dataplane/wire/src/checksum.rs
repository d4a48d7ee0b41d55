//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! A *sum* here is a ones' complement sum of big-endian 16-bit words, not yet complemented, in a
//! `u32` with room to add: values of this module may be added with `+` up to 4,096 times before
//! [`fold`]. A *checksum* is the complemented 16 bits of the wire.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::protocol::Protocol;

/// What a transport checksum field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ChecksumField {
    /// The checksum of pseudo-header, header and payload.
    #[default]
    Full,
    /// The uncomplemented sum of the pseudo-header alone (Linux `CHECKSUM_PARTIAL`): whoever sends
    /// the packet on a wire still has to add the rest.
    Partial,
}

/// Bytes the inner loop of [`sum`] takes per turn: eight words over two carry chains. Shorter
/// blocks pay for loop control, longer ones leave a longer tail; vector code is no faster here
/// without AVX2.
const BLOCK: usize = 64;

/// The sum of `bytes`; an odd last byte counts as the high half of a word. At most `0xffff`.
#[inline]
pub fn sum(bytes: &[u8]) -> u32 {
    // Words are added in native order and swapped at the end: RFC 1071 section 2(B).
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let (words, rest) = rest.as_chunks::<8>();
    let mut total = u128::from(tail(rest));
    for word in words {
        total += u128::from(u64::from_ne_bytes(*word));
    }
    if !blocks.is_empty() {
        total += sum_blocks(blocks);
    }
    u32::from(u16::from_be(fold_wide(total)))
}

/// Adding to a `u128` is an add and an add-with-carry: the upper half collects the carries.
#[inline(always)]
fn sum_blocks(blocks: &[[u8; BLOCK]]) -> u128 {
    let mut totals = [0_u128; 2];
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for lane in 0..BLOCK / 8 {
            totals[lane % 2] += u128::from(u64::from_ne_bytes(words[lane]));
        }
    }
    totals[0] + totals[1]
}

/// The sum of fewer than eight bytes.
#[inline(always)]
fn tail(mut rest: &[u8]) -> u64 {
    let mut total = 0;
    if let Some((word, after)) = rest.split_first_chunk() {
        total += u64::from(u32::from_ne_bytes(*word));
        rest = after;
    }
    if let Some((word, after)) = rest.split_first_chunk() {
        total += u64::from(u16::from_ne_bytes(*word));
        rest = after;
    }
    if let [last] = *rest {
        total += u64::from(u16::from_ne_bytes([last, 0]));
    }
    total
}

#[inline(always)]
const fn fold_wide(sum: u128) -> u16 {
    let (folded, carry) = (sum as u64).overflowing_add((sum >> 64) as u64);
    // Below 2^33 from here on.
    let sum = (folded >> 32) + (folded & 0xffff_ffff) + carry as u64;
    let sum = (sum >> 16) + (sum & 0xffff);
    fold(((sum >> 16) + (sum & 0xffff)) as u32)
}

/// Folds a sum to its 16 bits, not complemented.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// The checksum of a sum.
#[inline(always)]
pub const fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// As [`finish`], but never zero: in UDP zero says "no checksum" (RFC 768).
#[inline(always)]
pub const fn finish_udp(sum: u32) -> u16 {
    nonzero(finish(sum))
}

/// The other representation of a zero checksum, for UDP.
#[inline(always)]
pub const fn nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Whether a sum that includes the checksum field verifies.
#[inline(always)]
pub const fn is_valid(sum: u32) -> bool {
    fold(sum) == 0xffff
}

/// The checksum of a region whose checksum field is zero.
#[inline]
pub fn of(bytes: &[u8]) -> u16 {
    finish(sum(bytes))
}

/// The sum of IPv4's pseudo-header (RFC 793 section 3.1); `len` counts header and payload.
#[inline]
pub const fn pseudo_v4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: Protocol,
    len: u16,
) -> u32 {
    let (source, destination) = (source.to_bits(), destination.to_bits());
    (source >> 16)
        + (source & 0xffff)
        + (destination >> 16)
        + (destination & 0xffff)
        + protocol.0 as u32
        + len as u32
}

/// The sum of IPv6's pseudo-header (RFC 8200 section 8.1); `len` counts header and payload.
#[inline]
pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: Protocol, len: u32) -> u32 {
    sum(&source.octets())
        + sum(&destination.octets())
        + (len >> 16)
        + (len & 0xffff)
        + u32::from(protocol.0)
}

/// Adds buffers of one packet in order, whatever their lengths: a buffer that starts at an odd
/// byte of the packet has its words swapped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accumulator {
    sum: u32,
    odd: bool,
}

impl Accumulator {
    /// Nothing added yet.
    pub const fn new() -> Self {
        Self { sum: 0, odd: false }
    }

    /// Starts from a sum such as a pseudo-header's.
    pub const fn starting_with(sum: u32) -> Self {
        Self { sum, odd: false }
    }

    /// Adds the next bytes of the packet.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        let part = sum(bytes) as u16;
        let part = if self.odd { part.swap_bytes() } else { part };
        self.sum = fold(self.sum) as u32 + u32::from(part);
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// The sum so far.
    #[inline]
    pub const fn sum(&self) -> u32 {
        self.sum
    }

    /// The checksum of all that was added.
    #[inline]
    pub const fn finish(&self) -> u16 {
        finish(self.sum)
    }
}

/// The change of a sum when fields of a packet are replaced; one delta may hold many fields and be
/// applied to several checksums (a translated address changes the IP and the transport one). There is
/// room for 8,192 fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u32);

impl Delta {
    /// No change.
    pub const fn new() -> Self {
        Self(0)
    }

    /// A 16-bit word at an even offset was replaced.
    #[inline]
    #[must_use]
    pub const fn word(self, old: u16, new: u16) -> Self {
        // RFC 1624 section 3: subtracting is adding the complement.
        Self(self.0 + !old as u32 + new as u32)
    }

    /// Two words, such as an IPv4 address, were replaced.
    #[inline]
    #[must_use]
    pub const fn double(self, old: u32, new: u32) -> Self {
        let old = !old;
        let (removed, added) = ((old >> 16) + (old & 0xffff), (new >> 16) + (new & 0xffff));
        Self(self.0 + removed + added)
    }

    /// An IPv4 address was replaced.
    #[inline]
    #[must_use]
    pub const fn v4(self, old: Ipv4Addr, new: Ipv4Addr) -> Self {
        self.double(old.to_bits(), new.to_bits())
    }

    /// An IPv6 address was replaced.
    #[inline]
    #[must_use]
    pub fn v6(self, old: Ipv6Addr, new: Ipv6Addr) -> Self {
        if old == new {
            // Most translations replace one address of the two.
            return self;
        }
        self.word(sum(&old.octets()) as u16, sum(&new.octets()) as u16)
    }

    /// Words of 32 bits at even offsets were replaced.
    #[inline(always)]
    #[must_use]
    pub fn words<const N: usize>(self, old: &[u32; N], new: &[u32; N]) -> Self {
        let changed = |(old, new): (&u32, &u32)| u64::from(!old) + u64::from(*new);
        let sum: u64 = old.iter().zip(new).map(changed).sum();
        let sum = (sum >> 32) + ((sum >> 16) & 0xffff) + (sum & 0xffff);
        Self(self.0 + sum as u32)
    }

    /// The sum `old` of some words became `new`.
    #[inline]
    #[must_use]
    pub const fn sums(self, old: u32, new: u32) -> Self {
        self.word(fold(old), fold(new))
    }

    /// The new value of a full checksum.
    #[inline]
    pub const fn apply(self, checksum: u16) -> u16 {
        finish(!checksum as u32 + self.0)
    }

    /// The new value of a field that holds an uncomplemented sum.
    #[inline]
    pub const fn apply_to_sum(self, sum: u16) -> u16 {
        fold(sum as u32 + self.0)
    }

    /// The new value of a transport checksum after a change in its **pseudo-header**.
    #[inline]
    pub const fn apply_pseudo(self, value: u16, field: ChecksumField) -> u16 {
        match field {
            ChecksumField::Full => self.apply(value),
            ChecksumField::Partial => self.apply_to_sum(value),
        }
    }
}

/// A checksum after one word at an even offset was replaced (RFC 1624 equation 3).
#[inline]
pub const fn update_u16(checksum: u16, old: u16, new: u16) -> u16 {
    Delta::new().word(old, new).apply(checksum)
}

/// A checksum after two words were replaced.
#[inline]
pub const fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    Delta::new().double(old, new).apply(checksum)
}

/// A checksum after 16 bytes, such as an IPv6 address, were replaced.
#[inline]
pub fn update_16_bytes(checksum: u16, old: &[u8; 16], new: &[u8; 16]) -> u16 {
    Delta::new().sums(sum(old), sum(new)).apply(checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 section 3, the numerical example.
    const EXAMPLE: [u8; 8] = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];

    #[test]
    fn sums_the_example_of_rfc_1071() {
        assert_eq!(sum(&EXAMPLE), 0xddf2);
        assert_eq!(of(&EXAMPLE), 0x220d);
        assert_eq!(sum(&[]), 0);
        assert_eq!(sum(&[0xab]), 0xab00);
    }

    #[test]
    fn an_all_ones_region_of_64_kib_does_not_overflow() {
        assert_eq!(sum(&[0xff; 65535]), 0xff00);
        assert_eq!(sum(&[0xff; 65536]), 0xffff);
    }

    #[test]
    fn adds_4096_sums_without_overflow() {
        let many = (0..4096).fold(0, |all, _| all + sum(&[0xff; 16]));
        assert_eq!(fold(many), 0xffff);
    }

    #[test]
    fn accumulator_swaps_buffers_that_start_at_odd_bytes() {
        let mut all = Accumulator::new();
        for part in [
            &EXAMPLE[..1],
            &EXAMPLE[1..4],
            &[],
            &EXAMPLE[4..7],
            &EXAMPLE[7..],
        ] {
            all.add(part);
        }
        assert_eq!(all.finish(), 0x220d);
        assert_eq!(Accumulator::starting_with(5).sum(), 5);
    }

    #[test]
    fn updates_the_example_of_rfc_1624() {
        // Section 4: the case in which RFC 1141's equation yields 0xffff.
        assert_eq!(update_u16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn udp_never_sends_zero() {
        assert_eq!(finish(0xffff), 0);
        assert_eq!(finish_udp(0xffff), 0xffff);
        assert_eq!(finish_udp(0x1234), !0x1234);
    }

    #[test]
    fn a_delta_moves_a_partial_field_with_the_pseudo_header() {
        let (a, b, c) = (
            Ipv4Addr::new(10, 0, 0, 1),
            Ipv4Addr::new(10, 96, 0, 10),
            Ipv4Addr::new(10, 1, 2, 3),
        );
        let partial = fold(pseudo_v4(a, b, Protocol::TCP, 1500));
        let moved = Delta::new()
            .v4(b, c)
            .apply_pseudo(partial, ChecksumField::Partial);
        assert_eq!(moved, fold(pseudo_v4(a, c, Protocol::TCP, 1500)));
        let full = finish(pseudo_v4(a, b, Protocol::TCP, 1500) + 0x4321);
        let moved = Delta::new()
            .v4(b, c)
            .apply_pseudo(full, ChecksumField::Full);
        assert_eq!(moved, finish(pseudo_v4(a, c, Protocol::TCP, 1500) + 0x4321));
    }
}
