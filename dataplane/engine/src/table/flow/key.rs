//! What names a connection, and its hash: the same for both directions.

use std::net::IpAddr;

use zerocopy::native_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

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

/// IPv4 addresses and ports of a packet: source, destination, source port and destination port, with their bytes in
/// the packet's order, so that they go from and to it as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Tuple4 {
    /// Source, then destination.
    addresses: U64,
    ports: u32,
}

/// The same of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Tuple6 {
    /// Two for the source, then two for the destination.
    addresses: [U64; 4],
    ports: u32,
}

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

const _: () = assert!(size_of::<Tuple4>() == 12 && size_of::<Tuple6>() == 36);

impl Tuple4 {
    /// Source and destination; both ports.
    #[inline(always)]
    pub(crate) const fn parts(&self) -> (u64, u32) {
        (self.addresses.get(), self.ports)
    }

    /// What a packet of the other direction has.
    #[inline(always)]
    #[must_use]
    pub const fn mirrored(self) -> Self {
        Self {
            addresses: U64::new(self.addresses.get().rotate_left(32)),
            ports: self.ports.rotate_left(16),
        }
    }

    /// As `==`, without its call: an address taken would keep the packet's tuple in memory.
    #[inline(always)]
    pub(super) const fn is(&self, other: &Self) -> bool {
        self.addresses.get() == other.addresses.get() && self.ports == other.ports
    }

    #[inline(always)]
    fn hash(self, protocol: u8, seed: HashSeed) -> u64 {
        let [source, destination]: [u32; 2] = transmute!(self.addresses);
        let (source_port, destination_port) = halves(self.ports);
        let from = u64::from(source) << 16 | source_port;
        let to = u64::from(destination) << 16 | destination_port;
        seed.join(from, to, protocol)
    }
}

impl Tuple6 {
    /// Source and destination, two words each; both ports.
    #[inline(always)]
    pub(crate) const fn parts(&self) -> ([u64; 4], u32) {
        let [a, b, c, d] = self.addresses;
        ([a.get(), b.get(), c.get(), d.get()], self.ports)
    }

    /// What a packet of the other direction has.
    #[inline(always)]
    #[must_use]
    pub const fn mirrored(self) -> Self {
        let [a, b, c, d] = self.addresses;
        Self {
            addresses: [c, d, a, b],
            ports: self.ports.rotate_left(16),
        }
    }

    /// As `==`: see [`Tuple4::is`].
    #[inline(always)]
    pub(super) const fn is(&self, other: &Self) -> bool {
        let (([a, b, c, d], ports), ([e, f, g, h], other_ports)) = (self.parts(), other.parts());
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) | (ports ^ other_ports) as u64 == 0
    }

    #[inline(always)]
    fn hash(self, protocol: u8, seed: HashSeed) -> u64 {
        let ([a, b, c, d], ports) = self.parts();
        let (source_port, destination_port) = halves(ports);
        let from = seed.fold(a, b) ^ source_port;
        let to = seed.fold(c, d) ^ destination_port;
        seed.join(from, to, protocol)
    }
}

impl From<Tuple4> for Tuple {
    #[inline(always)]
    fn from(tuple: Tuple4) -> Self {
        Self::V4(tuple)
    }
}

impl From<Tuple6> for Tuple {
    #[inline(always)]
    fn from(tuple: Tuple6) -> Self {
        Self::V6(tuple)
    }
}

impl Tuple {
    /// The tuple of a packet; `None` when the addresses are of two families.
    #[inline(always)]
    pub fn new(source: IpAddr, destination: IpAddr, ports: (u16, u16)) -> Option<Self> {
        let ports = (u32::from(ports.0) << 16 | u32::from(ports.1)).to_be();
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Self::V4(Tuple4 {
                addresses: transmute!([source.octets(), destination.octets()]),
                ports,
            })),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Self::V6(Tuple6 {
                addresses: transmute!([source.octets(), destination.octets()]),
                ports,
            })),
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
        self.addresses().0
    }

    /// Destination address.
    #[inline(always)]
    pub fn destination(self) -> IpAddr {
        self.addresses().1
    }

    #[inline(always)]
    fn addresses(self) -> (IpAddr, IpAddr) {
        match self {
            Self::V4(tuple) => {
                let [source, destination]: [[u8; 4]; 2] = transmute!(tuple.addresses);
                (source.into(), destination.into())
            }
            Self::V6(tuple) => {
                let [source, destination]: [[u8; 16]; 2] = transmute!(tuple.addresses);
                (source.into(), destination.into())
            }
        }
    }

    /// Source and destination port; of an ICMP query its identifier and its type.
    #[inline(always)]
    pub const fn ports(self) -> (u16, u16) {
        let ports = u32::from_be(match self {
            Self::V4(tuple) => tuple.ports,
            Self::V6(tuple) => tuple.ports,
        });
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

/// Source and destination port, in some order of their bytes.
#[inline(always)]
fn halves(ports: u32) -> (u64, u64) {
    let [source, destination]: [u16; 2] = transmute!(ports);
    (u64::from(source), u64::from(destination))
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
    const fn fold(self, front: u64, back: u64) -> u64 {
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
