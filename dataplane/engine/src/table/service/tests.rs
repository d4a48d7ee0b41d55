//! Services against a plain model, and what versions share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn key(number: u8, port: u16) -> FrontendKey {
    FrontendKey {
        address: IpAddr::V4([10, 96, 0, number].into()),
        protocol: 6,
        port,
    }
}

fn frontend(key: FrontendKey, backends: Vec<u32>) -> FrontendSpec {
    FrontendSpec {
        inside_backends: None,
        key,
        keeps_source: false,
        direct: false,
        drops: false,
        sources: None,
        backends,
    }
}

/// A service with one port at its own address, and so many backends.
fn service(number: u8, backends: u8) -> ServiceSpec {
    ServiceSpec {
        backends: (0..backends)
            .map(|it| (IpAddr::V4([10, 1, number, it].into()), 8080))
            .collect(),
        frontends: vec![frontend(key(number, 80), (0..backends.into()).collect())],
        ..ServiceSpec::default()
    }
}

fn chance(hash: u64) -> Chance {
    Chance { hash, random: hash }
}

fn seen(tables: &ServiceTables, number: u8) -> Option<BTreeSet<(IpAddr, u16)>> {
    let frontend = tables.get(&key(number, 80))?;
    let backends = frontend.backends().iter();
    Some(backends.map(|it| (it.address, it.port)).collect())
}

proptest! {
    #[test]
    fn frontends_are_those_wanted_last(
        steps in prop::collection::vec((0_u8..8, prop::option::of(0_u8..5)), 1..60),
    ) {
        let mut builder = ServiceBuilder::default();
        let mut model = BTreeMap::new();
        for (number, backends) in steps {
            let id = ServiceId(number.into());
            match backends {
                Some(backends) => {
                    builder.set(id, &service(number, backends));
                    model.insert(number, backends);
                }
                None => {
                    builder.remove(id);
                    model.remove(&number);
                }
            }
            let tables = builder.build();
            prop_assert_eq!(tables.len(), model.len());
            let mut ids = BTreeSet::new();
            for number in 0..8 {
                let wanted = model.get(&number).map(|it| service(number, *it));
                let wanted = wanted.map(|it| it.backends.into_iter().collect::<BTreeSet<_>>());
                prop_assert_eq!(seen(&tables, number), wanted);
                for backend in builder.backends(ServiceId(number.into())) {
                    prop_assert!(ids.insert(backend.id), "every backend has its own number");
                }
            }
        }
    }
}

#[test]
fn a_change_of_one_service_shares_the_others() {
    let mut builder = ServiceBuilder::default();
    for number in 0..200 {
        builder.set(ServiceId(number.into()), &service(number, 3));
    }
    let old = builder.build();
    builder.set(ServiceId(7), &service(7, 2));
    let new = builder.build();
    let shared = old.shards.iter().zip(new.shards.iter());
    let shared = shared.filter(|(old, new)| Arc::ptr_eq(old, new)).count();
    assert_eq!(shared, SHARDS - 1);
    assert_eq!(seen(&old, 7).map(|it| it.len()), Some(3));
    assert_eq!(seen(&new, 7).map(|it| it.len()), Some(2));
}

#[test]
fn the_epoch_moves_when_something_goes_and_numbers_stay() {
    let mut builder = ServiceBuilder::default();
    builder.set(ServiceId(1), &service(1, 2));
    let first = builder.build().epoch();
    let numbers = builder.backends(ServiceId(1)).to_vec();
    builder.set(ServiceId(1), &service(1, 3));
    assert_eq!(builder.build().epoch(), first, "one more harms nobody");
    assert_eq!(builder.backends(ServiceId(1))[..2], numbers[..]);
    builder.set(ServiceId(1), &service(1, 2));
    assert_ne!(builder.build().epoch(), first);
    assert_eq!(builder.take_renumbered(), []);
    builder.set(ServiceId(1), &service(1, 3));
    assert_eq!(builder.take_renumbered().len(), 1);
}

#[test]
fn a_frontend_stays_with_the_service_that_has_it() {
    let mut builder = ServiceBuilder::default();
    builder.set(ServiceId(1), &service(1, 2));
    builder.set(ServiceId(2), &service(1, 1));
    assert_eq!(seen(&builder.build(), 1).map(|it| it.len()), Some(2));
    builder.remove(ServiceId(2));
    assert!(seen(&builder.build(), 1).is_some());
}

#[test]
fn frontends_of_a_service_with_the_same_backends_share_their_table() {
    let mut builder = ServiceBuilder::default();
    let mut spec = service(1, 4);
    spec.frontends.push(frontend(key(1, 81), vec![3, 2, 1, 0]));
    spec.frontends.push(frontend(key(1, 82), vec![0]));
    builder.set(ServiceId(1), &spec);
    let tables = builder.build();
    let of = |port| &tables.get(&key(1, port)).expect("a frontend").choice;
    assert!(Arc::ptr_eq(of(80), of(81)));
    assert!(!Arc::ptr_eq(of(80), of(82)));
}

#[test]
fn each_algorithm_chooses_among_the_frontends_backends() {
    for algorithm in [
        Algorithm::Maglev,
        Algorithm::Random,
        Algorithm::LeastConnections,
    ] {
        let mut builder = ServiceBuilder::default();
        let spec = ServiceSpec {
            algorithm,
            ..service(1, 5)
        };
        builder.set(ServiceId(1), &spec);
        let tables = builder.build();
        let frontend = tables.get(&key(1, 80)).expect("a frontend");
        let mut shares = [0_u32; 6];
        for turn in 0..500_u64 {
            let hash = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let load = |id: BackendId| shares[id.0 as usize];
            let backend = frontend
                .choose(Client::Outside, chance(hash), load)
                .expect("a backend");
            shares[backend.id.0 as usize] += 1;
        }
        let (least, most) = (shares[1..].iter().min(), shares[1..].iter().max());
        assert!(
            most.zip(least)
                .is_some_and(|(most, least)| most - least < 60),
            "{shares:?}"
        );
        assert_eq!(shares[0], 0);
    }
}

#[test]
fn a_frontend_without_backends_chooses_none() {
    let mut builder = ServiceBuilder::default();
    for algorithm in [
        Algorithm::Maglev,
        Algorithm::Random,
        Algorithm::LeastConnections,
    ] {
        let spec = ServiceSpec {
            algorithm,
            ..service(1, 0)
        };
        builder.set(ServiceId(1), &spec);
        let tables = builder.build();
        let frontend = tables.get(&key(1, 80)).expect("a frontend");
        assert_eq!(
            frontend.choose(Client::Outside, chance(u64::MAX), |_| 0),
            None
        );
    }
}

#[test]
fn sources_are_admitted_by_prefix_and_backends_known_by_address() {
    let mut builder = ServiceBuilder::default();
    let mut spec = service(1, 2);
    spec.frontends[0].sources = Some(vec!["192.0.2.0/24".parse().expect("a prefix")]);
    spec.frontends[0].backends = vec![1];
    builder.set(ServiceId(1), &spec);
    let tables = builder.build();
    let frontend = tables.get(&key(1, 80)).expect("a frontend");
    assert!(frontend.admits(ip("192.0.2.7")) && !frontend.admits(ip("192.0.3.7")));
    assert!(
        frontend.at(Client::Outside, ip("10.1.1.0")).is_none()
            && frontend.at(Client::Outside, ip("10.1.1.1")).is_some()
    );
    assert!(frontend.known(ip("10.1.1.0"), 8080).is_some());
    assert!(frontend.known(ip("10.1.1.0"), 8081).is_none());
}

#[test]
fn clients_inside_go_to_backends_of_their_own_where_the_frontend_has_some() {
    let mut builder = ServiceBuilder::default();
    let mut spec = service(1, 2);
    spec.frontends[0].backends = vec![0];
    spec.frontends[0].inside_backends = Some(vec![1]);
    let same = frontend(key(1, 81), vec![0]);
    spec.frontends.push(same);
    builder.set(ServiceId(1), &spec);
    let tables = builder.build();
    let chosen = |port, client| {
        let frontend = tables.get(&key(1, port)).expect("a frontend");
        frontend
            .choose(client, chance(7), |_| 0)
            .map(|it| it.address)
    };
    assert_eq!(chosen(80, Client::Outside), Some(ip("10.1.1.0")));
    assert_eq!(chosen(80, Client::Inside), Some(ip("10.1.1.1")));
    assert_eq!(chosen(81, Client::Inside), Some(ip("10.1.1.0")));
}
