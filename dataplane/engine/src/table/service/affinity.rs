//! Which backend a client's last connection went to (session affinity ClientIP): a bounded table of one worker.
//!
//! Set-associative: a client of a service has eight places it can be in, and the one whose time runs out first gives
//! way. So nothing is allocated or shifted, and a flood of clients displaces others of their set only.

use std::net::IpAddr;

use super::ServiceId;

/// Sets of the table. With [`WAYS`] 32,768 clients: 1.3 MiB once all were there.
const SETS: usize = 4096;

/// Places of a set.
const WAYS: usize = 8;

/// Words of a place: the client's address in two, the backend's in two, service and end. A new table of whole words
/// is zero pages that take no memory yet.
const WORDS: usize = 5;

type Place = [u64; WORDS];

/// Time as the table keeps it: seconds, so that any timeout fits.
const SECOND_NS: u64 = 1_000_000_000;

/// The table.
pub struct Affinity {
    places: Box<[Place]>,
    seed: u64,
}

impl Affinity {
    /// An empty table. `seed` must be secret: keys come from the network.
    pub fn new(seed: u64) -> Self {
        Self {
            places: vec![[0; WORDS]; SETS * WAYS].into_boxed_slice(),
            seed,
        }
    }

    /// The address of the backend a client has with a service.
    pub fn backend(&self, service: ServiceId, client: IpAddr, now_ns: u64) -> Option<IpAddr> {
        let key = words(client);
        let places = &self.places[self.set(service, key)];
        let place = places.iter().find(|it| is(it, service, key))?;
        let ends = place[4] as u32;
        (u64::from(ends) > now_ns / SECOND_NS).then(|| address(place[2], place[3], client))
    }

    /// Remembers a client's backend for `seconds` from now on.
    pub fn remember(
        &mut self,
        (service, client): (ServiceId, IpAddr),
        backend: IpAddr,
        seconds: u32,
        now_ns: u64,
    ) {
        let key = words(client);
        let set = self.set(service, key);
        let places = &mut self.places[set];
        let known = places.iter().position(|it| is(it, service, key));
        let oldest = || (0..WAYS).min_by_key(|it| places[*it][4] as u32);
        let Some(at) = known.or_else(oldest) else {
            return;
        };
        // The second at hand counts as a whole one, so that none is lost.
        let now = u32::try_from(now_ns / SECOND_NS + 1).unwrap_or(u32::MAX);
        let ends = u64::from(now.saturating_add(seconds));
        let to = words(backend);
        places[at] = [key.0, key.1, to.0, to.1, u64::from(service.0) << 32 | ends];
    }

    fn set(&self, service: ServiceId, key: (u64, u64)) -> std::ops::Range<usize> {
        let mut hash = self.seed;
        for word in [key.0, key.1, u64::from(service.0)] {
            let product = u128::from(hash ^ word) * 0x9e37_79b9_7f4a_7c15;
            hash = product as u64 ^ (product >> 64) as u64;
        }
        let set = (hash >> 32) as usize % SETS;
        set * WAYS..(set + 1) * WAYS
    }
}

fn is(place: &Place, service: ServiceId, key: (u64, u64)) -> bool {
    (place[0], place[1]) == key && place[4] >> 32 == u64::from(service.0) && place[4] as u32 != 0
}

/// An address as two words; of IPv4 the second alone, which no global IPv6 address is.
fn words(address: IpAddr) -> (u64, u64) {
    match address {
        IpAddr::V4(v4) => (0, v4.to_bits().into()),
        IpAddr::V6(v6) => ((v6.to_bits() >> 64) as u64, v6.to_bits() as u64),
    }
}

fn address(high: u64, low: u64, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4((low as u32).into()),
        IpAddr::V6(_) => IpAddr::V6((u128::from(high) << 64 | u128::from(low)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_client_keeps_its_backend_for_the_time_of_its_service() {
        let mut table = Affinity::new(5);
        for (client, backend) in [("10.0.0.1", "10.1.0.1"), ("fd00::1", "fd01::1")] {
            let (client, backend) = (ip(client), ip(backend));
            table.remember((ServiceId(3), client), backend, 10, 5_500_000_000);
            let at = |service, ns| table.backend(ServiceId(service), client, ns);
            assert_eq!(at(3, 15_500_000_000), Some(backend));
            assert_eq!(at(3, 16_000_000_000), None, "over");
            assert_eq!(at(4, 6_000_000_000), None, "another service");
        }
        assert_eq!(table.backend(ServiceId(3), ip("10.0.0.2"), 0), None);
    }

    #[test]
    fn a_flood_displaces_the_oldest_of_a_set_only() {
        let mut table = Affinity::new(5);
        let client = |number: u32| IpAddr::V4(number.into());
        for number in 0..200_000 {
            let key = (ServiceId(1), client(number));
            table.remember(key, client(!number), 60, u64::from(number) * 1_000_000);
        }
        let now = 200_000 * 1_000_000;
        let known = |from: u32, to: u32| {
            let known =
                (from..to).filter(|it| table.backend(ServiceId(1), client(*it), now).is_some());
            known.count()
        };
        assert_eq!(known(0, 100_000), 0, "displaced or over");
        assert!(known(190_000, 200_000) > 9_900);
    }
}
