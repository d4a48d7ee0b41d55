//! Consistent choice of a backend: Maglev's table (Eisenbud et al., NSDI 2016, section 3.4).
//!
//! The table depends on the backends alone, so that all nodes choose alike and a restart changes nothing. Its size has
//! to be the same before and after a backend comes or goes, since with another size every place means another
//! backend: it is the smallest prime of at least 100 times the next power of two, so that only a growth past a power
//! of two moves everybody.

use std::net::IpAddr;

/// Places for each backend: their shares of the table then differ by one in a hundred.
const PLACES_PER_BACKEND: u32 = 100;

/// Backends one table can have: places are 16 bits.
pub const BACKENDS_MAX: usize = 1 << 16;

/// A table of backends by their number. It takes 100 to 200 bytes for each of up to 256 backends, twice that for
/// each of more.
#[derive(Debug)]
pub(super) enum Maglev {
    /// At most one backend.
    One,
    /// Up to 256 backends.
    Few(Box<[u8]>),
    /// More.
    Many(Box<[u16]>),
}

impl Maglev {
    /// The table of backends with these keys. The order of backends matters where the keys' turns meet: all nodes
    /// give them in the same one.
    pub(super) fn new(keys: &[u64]) -> Self {
        match keys.len() {
            0 | 1 => Self::One,
            2..=256 => Self::Few(fill(keys).into_iter().map(|it| it as u8).collect()),
            _ => Self::Many(fill(keys).into_iter().map(|it| it as u16).collect()),
        }
    }

    /// The number of the backend for a connection's hash.
    #[inline]
    pub(super) fn pick(&self, hash: u64) -> usize {
        let place = |len: usize| (((hash >> 32) * len as u64) >> 32) as usize;
        match self {
            Self::One => 0,
            Self::Few(table) => usize::from(table[place(table.len())]),
            Self::Many(table) => usize::from(table[place(table.len())]),
        }
    }
}

/// What a backend's permutation is made of.
pub(super) fn key(address: IpAddr, port: u16) -> u64 {
    let bits = match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let folded = spread(spread(bits as u64) ^ (bits >> 64) as u64);
    spread(folded ^ u64::from(port) << 48)
}

/// The finisher of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
const fn spread(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// A backend's permutation of the places, as far as it was gone through.
struct Turns {
    place: u32,
    skip: u32,
}

/// The backends take turns: each takes the first place of its permutation that is free.
fn fill(keys: &[u64]) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let len = table_len(keys.len() as u32);
    let mut table = vec![FREE; len as usize];
    let mut turns: Vec<Turns> = keys
        .iter()
        .map(|key| Turns {
            place: (spread(*key) % u64::from(len)) as u32,
            skip: (spread(!key) % u64::from(len - 1)) as u32 + 1,
        })
        .collect();
    let backends = keys.len();
    for turn in 0..len as usize {
        let backend = turn % backends;
        let Turns { place, skip } = &mut turns[backend];
        while table[*place as usize] != FREE {
            // Both are below the length.
            *place += *skip;
            if *place >= len {
                *place -= len;
            }
        }
        table[*place as usize] = backend as u32;
    }
    table
}

fn table_len(backends: u32) -> u32 {
    let least = PLACES_PER_BACKEND * backends.next_power_of_two();
    (least..).find(|it| is_prime(*it)).unwrap_or(least)
}

fn is_prime(number: u32) -> bool {
    let divisors = (2..).take_while(|it| it * it <= number);
    number > 1 && divisors.into_iter().all(|it| !number.is_multiple_of(it))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(seed: u32, backends: u32) -> Vec<u64> {
        let address =
            |number: u32| IpAddr::V4((0x0a00_0000 + seed % 0xff_0000 + number * 7).into());
        (0..backends).map(|it| key(address(it), 8080)).collect()
    }

    fn places(table: &Maglev) -> Vec<usize> {
        match table {
            Maglev::One => vec![0],
            Maglev::Few(table) => table.iter().map(|it| usize::from(*it)).collect(),
            Maglev::Many(table) => table.iter().map(|it| usize::from(*it)).collect(),
        }
    }

    #[test]
    fn sizes_are_primes_that_change_at_powers_of_two_only() {
        assert_eq!((table_len(2), table_len(3), table_len(4)), (211, 401, 401));
        assert_eq!(table_len(100), table_len(65));
        assert_ne!(table_len(128), table_len(129));
        assert!(is_prime(table_len(1000)));
    }

    #[test]
    fn one_backend_gets_all() {
        assert_eq!(Maglev::new(&keys(1, 1)).pick(u64::MAX), 0);
        assert_eq!(Maglev::new(&[]).pick(7), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn shares_are_even(seed: u32, backends in 2_u32..400) {
            let table = Maglev::new(&keys(seed, backends));
            let mut shares = vec![0_u32; backends as usize];
            for place in places(&table) {
                shares[place] += 1;
            }
            let (least, most) = (shares.iter().min(), shares.iter().max());
            prop_assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1));
        }
    }

    /// A hundred sets of a hundred backends, always the same ones: a share is what chance makes of it (1.5 % on
    /// average, 1.7 % in 95 of 100 sets).
    #[test]
    fn a_backend_that_goes_moves_few_flows_of_the_others() {
        let shares: Vec<f64> = (0..100_usize)
            .map(|set| moved_share(set as u32 * 104_729, set))
            .collect();
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        let most = shares.iter().copied().fold(0.0, f64::max);
        assert!(mean <= 0.02 && most <= 0.03, "mean {mean}, most {most}");
    }

    /// The share of all places that lead elsewhere when this backend of a hundred goes, its own not counted.
    fn moved_share(seed: u32, gone: usize) -> f64 {
        let before = keys(seed, 100);
        let mut after = before.clone();
        after.remove(gone);
        let (old, new) = (places(&Maglev::new(&before)), places(&Maglev::new(&after)));
        let others = old.iter().zip(&new).filter(|(old, _)| **old != gone);
        let moved = others
            .filter(|(old, new)| before[**old] != after[**new])
            .count();
        moved as f64 / old.len() as f64
    }
}
