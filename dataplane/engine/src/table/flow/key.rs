//! What names a connection, and its hash: the same for both directions.

use std::net::IpAddr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Which way a packet of a connection goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// As its first packet.
    #[default]
    Original,
    /// Back.
    Reply,
}

impl Direction {
    /// Place in arrays of two.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The other one.
    #[inline]
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}

/// IPv4 addresses and ports of a packet: source, destination, source port and destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Tuple4([u32; 3]);

/// The same of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Tuple6([u32; 9]);

/// Addresses and ports of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tuple {
    /// Of IPv4.
    V4(Tuple4),
    /// Of IPv6.
    V6(Tuple6),
}

/// What names a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Addresses and ports.
    pub tuple: Tuple,
    /// Upper protocol.
    pub protocol: u8,
}

impl Tuple4 {
    /// Source, destination, both ports.
    #[inline(always)]
    pub(crate) const fn words(&self) -> &[u32; 3] {
        &self.0
    }

    /// What a packet of the other direction has.
    #[inline]
    #[must_use]
    pub const fn mirrored(self) -> Self {
        let [source, destination, ports] = self.0;
        Self([destination, source, ports.rotate_left(16)])
    }

    #[inline(always)]
    fn hash(self, protocol: u8, seed: HashSeed) -> u64 {
        let [source, destination, ports] = self.0;
        let from = u64::from(source) << 16 | u64::from(ports >> 16);
        let to = u64::from(destination) << 16 | u64::from(ports & 0xffff);
        seed.join(from, to, protocol)
    }
}

impl Tuple6 {
    /// Source, destination (four words each), both ports.
    #[inline(always)]
    pub(crate) const fn words(&self) -> &[u32; 9] {
        &self.0
    }

    /// What a packet of the other direction has.
    #[inline]
    #[must_use]
    pub const fn mirrored(self) -> Self {
        let [a, b, c, d, e, f, g, h, ports] = self.0;
        Self([e, f, g, h, a, b, c, d, ports.rotate_left(16)])
    }

    #[inline(always)]
    fn hash(self, protocol: u8, seed: HashSeed) -> u64 {
        let [a, b, c, d, e, f, g, h, ports] = self.0;
        let from = seed.fold([a, b, c, d]) ^ u64::from(ports >> 16);
        let to = seed.fold([e, f, g, h]) ^ u64::from(ports & 0xffff);
        seed.join(from, to, protocol)
    }
}

impl Tuple {
    /// The tuple of a packet; `None` when the addresses are of two families.
    #[inline(always)]
    pub fn new(source: IpAddr, destination: IpAddr, ports: (u16, u16)) -> Option<Self> {
        let ports = u32::from(ports.0) << 16 | u32::from(ports.1);
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Self::V4(Tuple4([
                source.to_bits(),
                destination.to_bits(),
                ports,
            ]))),
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let [a, b, c, d] = words(source.to_bits());
                let [e, f, g, h] = words(destination.to_bits());
                Some(Self::V6(Tuple6([a, b, c, d, e, f, g, h, ports])))
            }
            _ => None,
        }
    }

    /// What a packet of the other direction has.
    #[inline]
    #[must_use]
    pub const fn mirrored(self) -> Self {
        match self {
            Self::V4(tuple) => Self::V4(tuple.mirrored()),
            Self::V6(tuple) => Self::V6(tuple.mirrored()),
        }
    }

    /// Source address.
    #[inline(always)]
    pub fn source(self) -> IpAddr {
        match self {
            Self::V4(Tuple4([source, ..])) => IpAddr::V4(source.into()),
            Self::V6(Tuple6([a, b, c, d, ..])) => IpAddr::V6(bits([a, b, c, d]).into()),
        }
    }

    /// Destination address.
    #[inline(always)]
    pub fn destination(self) -> IpAddr {
        match self {
            Self::V4(Tuple4([_, destination, _])) => IpAddr::V4(destination.into()),
            Self::V6(Tuple6([_, _, _, _, e, f, g, h, _])) => IpAddr::V6(bits([e, f, g, h]).into()),
        }
    }

    /// Source and destination port; of an ICMP query its identifier and its type.
    #[inline(always)]
    pub const fn ports(self) -> (u16, u16) {
        let ports = match self {
            Self::V4(Tuple4([_, _, ports])) => ports,
            Self::V6(tuple) => tuple.0[8],
        };
        ((ports >> 16) as u16, ports as u16)
    }
}

impl FlowKey {
    /// One number for both directions of a connection.
    #[inline(always)]
    pub fn hash(&self, seed: HashSeed) -> u64 {
        match self.tuple {
            Tuple::V4(tuple) => tuple.hash(self.protocol, seed),
            Tuple::V6(tuple) => tuple.hash(self.protocol, seed),
        }
    }

    /// The key of packets of the other direction.
    #[must_use]
    pub const fn mirrored(self) -> Self {
        Self {
            tuple: self.tuple.mirrored(),
            ..self
        }
    }
}

#[inline]
const fn words(bits: u128) -> [u32; 4] {
    [
        (bits >> 96) as u32,
        (bits >> 64) as u32,
        (bits >> 32) as u32,
        bits as u32,
    ]
}

const fn bits([a, b, c, d]: [u32; 4]) -> u128 {
    (a as u128) << 96 | (b as u128) << 64 | (c as u128) << 32 | d as u128
}

/// An odd constant with its bits spread evenly: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// What makes hashes of network input unforeseeable. Both halves are secret: a multiplication with a
/// known half could be made zero from outside.
#[derive(Clone, Copy, Debug)]
pub struct HashSeed {
    low: u64,
    high: u64,
}

impl HashSeed {
    /// Two halves of one random number.
    pub const fn new(seed: u64) -> Self {
        Self {
            low: seed,
            high: mix(seed ^ SPREAD, 0xd6e8_feb8_6659_fd93),
        }
    }

    #[inline(always)]
    const fn fold(self, [a, b, c, d]: [u32; 4]) -> u64 {
        let (front, back) = ((a as u64) << 32 | b as u64, (c as u64) << 32 | d as u64);
        mix(back ^ self.low, front ^ self.high)
    }

    /// The same for both orders of the two ends.
    #[inline(always)]
    const fn join(self, from: u64, to: u64, protocol: u8) -> u64 {
        let (small, large) = if from < to { (from, to) } else { (to, from) };
        let both = mix(small ^ self.low, large.rotate_left(8) ^ self.high);
        mix(both ^ protocol as u64, SPREAD ^ self.low)
    }
}

#[inline(always)]
const fn mix(a: u64, b: u64) -> u64 {
    let product = (a as u128).wrapping_mul(b as u128);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(source: IpAddr, destination: IpAddr, ports: (u16, u16)) -> FlowKey {
        let tuple = Tuple::new(source, destination, ports).expect("one family");
        FlowKey { tuple, protocol: 6 }
    }

    proptest! {
        #[test]
        fn both_directions_hash_alike_and_tell_their_parts(
            a: u128, b: u128, v6: bool, from: u16, to: u16, seed: u64,
        ) {
            let address = |bits: u128| match v6 {
                true => IpAddr::V6(bits.into()),
                false => IpAddr::V4((bits as u32).into()),
            };
            let there = key(address(a), address(b), (from, to));
            let back = key(address(b), address(a), (to, from));
            prop_assert_eq!(there.mirrored(), back);
            let seed = HashSeed::new(seed);
            prop_assert_eq!(there.hash(seed), back.hash(seed));
            prop_assert_eq!(there.tuple.source(), address(a));
            prop_assert_eq!(there.tuple.destination(), address(b));
            prop_assert_eq!(there.tuple.ports(), (from, to));
        }
    }

    #[test]
    fn neighbouring_connections_spread() {
        for (a, b) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let (a, b) = (
                a.parse().expect("an address"),
                b.parse().expect("an address"),
            );
            let hash = |port| key(a, b, (port, 80)).hash(HashSeed::new(1));
            // 4,096 flows in 4,096 places: 37 % stay empty by chance.
            let places: std::collections::HashSet<_> = (0..4096).map(|p| hash(p) >> 52).collect();
            assert!((2400..2800).contains(&places.len()), "{}", places.len());
        }
    }

    #[test]
    fn two_families_make_no_key() {
        let (a, b) = ("10.0.0.1".parse(), "fd00::1".parse());
        assert_eq!(Tuple::new(a.expect("v4"), b.expect("v6"), (1, 2)), None);
    }
}
