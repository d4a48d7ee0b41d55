use proptest::prelude::*;

use super::*;

fn port(n: u32) -> PortName {
    PortName(format!("weft{n}"))
}

fn ipam(prefixes: &[&str]) -> Ipam {
    let mut ipam = Ipam::new(COOLDOWN_MS_DEFAULT);
    let prefixes: Vec<IpNet> = prefixes.iter().map(|p| p.parse().unwrap()).collect();
    ipam.set_prefixes(&prefixes);
    ipam
}

fn texts(lease: &Lease) -> Vec<String> {
    lease.addresses.iter().map(IpAddr::to_string).collect()
}

#[test]
fn addresses_follow_each_other_in_both_families() {
    let mut ipam = ipam(&["10.1.2.0/24", "fd00:1::/64"]);
    let first = ipam.allocate(&port(1), 0).unwrap();
    assert_eq!(texts(&first), ["10.1.2.2", "fd00:1::2"]);
    assert_eq!(ipam.allocate(&port(1), 0).unwrap(), first);
    ipam.release(&port(1), 0);
    assert_eq!(
        texts(&ipam.allocate(&port(2), 0).unwrap()),
        ["10.1.2.3", "fd00:1::3"]
    );
    assert_eq!(
        node_port_addresses(&[
            "10.1.2.0/24".parse().unwrap(),
            "fd00:1::/64".parse().unwrap()
        ]),
        [
            "10.1.2.1".parse::<IpAddr>().unwrap(),
            "fd00:1::1".parse().unwrap()
        ]
    );
}

#[test]
fn exhaustion_names_the_prefix_and_ends_when_addresses_have_cooled() {
    let mut ipam = ipam(&["10.1.2.0/29"]);
    for n in 0..5 {
        ipam.allocate(&port(n), 0).unwrap();
    }
    let text = ipam.allocate(&port(9), 0).unwrap_err().to_string();
    assert_eq!(
        text,
        "no free address in 10.1.2.0/29: 5 in use, 0 released but cooling down"
    );
    ipam.release(&port(3), 1_000);
    let text = ipam.allocate(&port(9), 2_000).unwrap_err().to_string();
    assert!(
        text.contains("1 released but cooling down (the next is free in 29 s)"),
        "{text}"
    );
    let lease = ipam.allocate(&port(9), 31_000).unwrap();
    assert_eq!(texts(&lease), ["10.1.2.5"]);
}

#[test]
fn a_family_without_room_takes_nothing_of_the_other() {
    let mut ipam = ipam(&["10.1.2.0/30", "fd00:1::/64"]);
    ipam.allocate(&port(1), 0).unwrap();
    ipam.allocate(&port(2), 0).unwrap_err();
    assert_eq!(ipam.status(0)[1].used, 1);
    assert_eq!(ipam.status(0)[1].free, u64::MAX - 2);
}

#[test]
fn a_second_prefix_of_a_family_is_used_when_the_first_is_full() {
    let mut ipam = ipam(&["10.1.2.0/30", "10.9.0.0/30"]);
    ipam.allocate(&port(1), 0).unwrap();
    assert_eq!(texts(&ipam.allocate(&port(2), 0).unwrap()), ["10.9.0.2"]);
    let error = ipam.allocate(&port(3), 0).unwrap_err().to_string();
    assert!(error.contains("10.1.2.0/30, 10.9.0.0/30"), "{error}");
}

#[test]
fn delegated_addresses_are_recorded_and_never_given() {
    let mut ipam = ipam(&["10.1.2.0/24"]);
    let given = ["10.1.2.2".parse().unwrap(), "192.0.2.7".parse().unwrap()];
    let lease = ipam.record(&port(1), &given).unwrap();
    assert!(lease.delegated);
    assert_eq!(ipam.record(&port(1), &given).unwrap(), lease);
    let error = ipam.record(&port(2), &given[..1]).unwrap_err();
    assert_eq!(error.to_string(), "address 10.1.2.2 is in use by weft1");
    assert_eq!(texts(&ipam.allocate(&port(2), 0).unwrap()), ["10.1.2.3"]);
    for reserved in ["10.1.2.0", "10.1.2.1", "10.1.2.255"] {
        let error = ipam
            .record(&port(3), &[reserved.parse().unwrap()])
            .unwrap_err();
        assert!(matches!(error, IpamError::Reserved { .. }));
    }
    assert!(matches!(
        ipam.record(&port(1), &given[..1]),
        Err(IpamError::Differs { .. })
    ));
}

#[test]
fn a_state_that_contradicts_itself_is_refused() {
    let mut ipam = ipam(&["10.1.2.0/24"]);
    ipam.allocate(&port(1), 0).unwrap();
    let good = ipam.persisted();
    let mut twice = good.clone();
    twice.leases.push(PersistedLease {
        port: port(2),
        ..good.leases[0].clone()
    });
    let error = ipam.restore(twice, 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "address 10.1.2.2 is leased to weft1 and to weft2"
    );
    let mut twice = good.clone();
    twice.leases.push(PersistedLease {
        addresses: Vec::new(),
        ..good.leases[0].clone()
    });
    assert_eq!(
        ipam.restore(twice, 0),
        Err(RestoreError::PortTwice(port(1)))
    );
    assert_eq!(ipam.persisted(), good);
}

#[test]
fn leases_outside_changed_prefixes_stay() {
    let mut ipam = ipam(&["10.1.2.0/24"]);
    ipam.allocate(&port(1), 0).unwrap();
    ipam.set_prefixes(&["10.5.0.0/24".parse().unwrap()]);
    assert_eq!(texts(ipam.lease(&port(1)).unwrap()), ["10.1.2.2"]);
    assert_eq!(texts(&ipam.allocate(&port(2), 0).unwrap()), ["10.5.0.2"]);
}

/// What a runtime, another plugin and a restart may do.
#[derive(Clone, Debug)]
enum Step {
    Allocate(u32),
    Release(u32),
    Record(u32, u8),
    Wait(u64),
    Collect(u32),
    Restart,
    Resize(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u32..20).prop_map(Step::Allocate),
        4 => (0_u32..20).prop_map(Step::Release),
        1 => (0_u32..20, any::<u8>()).prop_map(|(n, a)| Step::Record(n, a % 20)),
        2 => (0_u64..20_000).prop_map(Step::Wait),
        1 => (0_u32..20).prop_map(Step::Collect),
        1 => Just(Step::Restart),
        1 => any::<bool>().prop_map(Step::Resize),
    ]
}

/// The plain model: who holds what, and when each address was let go.
#[derive(Default)]
struct Model {
    now: u64,
    held: BTreeMap<PortName, Vec<IpAddr>>,
    freed_at: BTreeMap<IpAddr, u64>,
    wide: bool,
}

impl Model {
    fn prefixes(&self) -> Vec<IpNet> {
        let first = if self.wide {
            "10.0.0.0/28"
        } else {
            "10.0.0.0/29"
        };
        vec![first.parse().unwrap(), "fd00::/124".parse().unwrap()]
    }

    /// Addresses that may be given now, by a plain scan.
    fn free(&self, prefix: IpNet) -> Vec<IpAddr> {
        let all: Vec<IpAddr> = prefix.hosts().collect();
        let first = prefix.network();
        let usable = all.into_iter().filter(|a| *a != first);
        let usable = usable.skip(1); // weft0's
        let held: Vec<&IpAddr> = self.held.values().flatten().collect();
        let cool = |a: &IpAddr| {
            let freed = self.freed_at.get(a);
            freed.is_none_or(|at| at + COOLDOWN_MS_DEFAULT <= self.now)
        };
        usable.filter(|a| !held.contains(&a) && cool(a)).collect()
    }

    fn release(&mut self, port: &PortName) {
        for address in self.held.remove(port).unwrap_or_default() {
            self.freed_at.insert(address, self.now);
        }
    }
}

fn apply(ipam: &mut Ipam, model: &mut Model, step: &Step) -> Result<(), TestCaseError> {
    match step {
        Step::Allocate(n) => allocate(ipam, model, &port(*n))?,
        Step::Release(n) => {
            let had = ipam
                .release(&port(*n), model.now)
                .map(|lease| lease.addresses);
            prop_assert_eq!(had.as_ref(), model.held.get(&port(*n)));
            model.release(&port(*n));
        }
        Step::Record(n, host) => {
            let address = IpAddr::from([10, 0, 0, *host]);
            let before = model.held.get(&port(*n));
            let taken = model.held.values().flatten().any(|a| *a == address);
            if ipam.record(&port(*n), &[address]).is_ok() {
                prop_assert!(before.map_or(!taken, |held| *held == [address]));
                model.held.insert(port(*n), vec![address]);
            }
        }
        Step::Wait(ms) => model.now += ms,
        Step::Collect(keep) => {
            let valid = (0..*keep).map(port).collect();
            let stale = ipam.retain(&valid, model.now);
            prop_assert!(stale.iter().all(|p| model.held.contains_key(p)));
            stale.iter().for_each(|p| model.release(p));
            prop_assert!(model.held.keys().all(|p| valid.contains(p)));
        }
        Step::Restart => {
            let text = serde_json::to_string(&ipam.persisted()).unwrap();
            let mut fresh = Ipam::new(COOLDOWN_MS_DEFAULT);
            fresh
                .restore(serde_json::from_str(&text).unwrap(), model.now)
                .unwrap();
            fresh.set_prefixes(&model.prefixes());
            *ipam = fresh;
        }
        Step::Resize(wide) => {
            model.wide = *wide;
            ipam.set_prefixes(&model.prefixes());
        }
    }
    Ok(())
}

fn allocate(ipam: &mut Ipam, model: &mut Model, port: &PortName) -> Result<(), TestCaseError> {
    let result = ipam.allocate(port, model.now);
    if let Some(held) = model.held.get(port) {
        prop_assert_eq!(&result.unwrap().addresses, held);
        return Ok(());
    }
    let free: Vec<Vec<IpAddr>> = model.prefixes().iter().map(|p| model.free(*p)).collect();
    match result {
        Ok(lease) => {
            prop_assert_eq!(lease.addresses.len(), 2);
            for (address, free) in lease.addresses.iter().zip(&free) {
                prop_assert!(free.contains(address), "{} not free", address);
                model.freed_at.remove(address);
            }
            model.held.insert(port.clone(), lease.addresses);
        }
        Err(_) => prop_assert!(free.iter().any(Vec::is_empty)),
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_address_is_given_twice_or_lost(steps in proptest::collection::vec(step(), 1..200)) {
        let mut model = Model::default();
        let mut ipam = Ipam::new(COOLDOWN_MS_DEFAULT);
        ipam.set_prefixes(&model.prefixes());
        for step in &steps {
            apply(&mut ipam, &mut model, step)?;
            let leases = ipam.leases().map(|(p, l)| (p.clone(), l.addresses.clone()));
            prop_assert_eq!(leases.collect::<BTreeMap<_, _>>(), model.held.clone());
            for (status, prefix) in ipam.status(model.now).iter().zip(model.prefixes()) {
                prop_assert_eq!(status.free, model.free(prefix).len() as u64);
            }
        }
    }
}
