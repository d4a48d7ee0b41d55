//! Makes versions of the services. Used by one thread, off the packet path.
//!
//! A change costs its service: its tables of backends, and the shards its frontends are in.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::maglev::{self, Maglev};
use super::{
    Algorithm, Backend, BackendId, Choice, Frontend, FrontendKey, Known, SHARDS, ServiceId,
    ServiceTables, Shard,
};

/// A service as it is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSpec {
    /// How a backend is chosen.
    pub algorithm: Algorithm,
    /// Seconds a client keeps its backend; none without affinity.
    pub affinity_seconds: Option<u32>,
    /// Address and port of all backends, those that end included.
    pub backends: Vec<(IpAddr, u16)>,
    /// Where clients knock.
    pub frontends: Vec<FrontendSpec>,
}

/// A frontend as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendSpec {
    /// Where.
    pub key: FrontendKey,
    /// The client's address stays whatever happens.
    pub keeps_source: bool,
    /// Other nodes' backends answer clients outside themselves.
    pub direct: bool,
    /// Where there is no backend nothing is answered.
    pub drops: bool,
    /// Who may connect; anybody without.
    pub sources: Option<Vec<IpNet>>,
    /// Backends new connections go to, by their place in [`ServiceSpec::backends`].
    pub backends: Vec<u32>,
    /// The same for clients inside, where those are others.
    pub inside_backends: Option<Vec<u32>>,
}

/// A service as it is in the tables.
struct Present {
    keys: Vec<FrontendKey>,
    known: Arc<Known>,
    choices: BTreeMap<Vec<BackendId>, Arc<Choice>>,
}

/// The state the next version is made of.
#[derive(Default)]
pub struct ServiceBuilder {
    tables: ServiceTables,
    services: HashMap<ServiceId, Present>,
    numbers: Numbers,
    /// Something went away since the last version.
    lost: bool,
}

impl ServiceBuilder {
    /// The next version; its epoch is another one if a backend or a frontend is gone.
    pub fn build(&mut self) -> ServiceTables {
        if std::mem::take(&mut self.lost) {
            self.tables.epoch = self.tables.epoch.wrapping_add(1);
        }
        self.tables.clone()
    }

    /// Adds or replaces a service. Where another service has one of its frontends already, that one keeps it.
    pub fn set(&mut self, service: ServiceId, spec: &ServiceSpec) {
        let old = self.services.remove(&service);
        let known = self.numbered(spec, old.as_ref());
        let mut choices = BTreeMap::new();
        let mut keys = Vec::new();
        for frontend in &spec.frontends {
            let mut choice_of = |places: &[u32]| {
                let backends = chosen(&known, spec, places);
                let of_backends: Vec<BackendId> = backends.iter().map(|it| it.id).collect();
                let before = old.as_ref().and_then(|it| it.choices.get(&of_backends));
                let made = choices
                    .entry(of_backends)
                    .or_insert_with(|| before.cloned().unwrap_or_else(|| choice(backends)));
                Arc::clone(made)
            };
            let entry = Frontend {
                service,
                algorithm: spec.algorithm,
                affinity_seconds: spec.affinity_seconds,
                keeps_source: frontend.keeps_source,
                direct: frontend.direct,
                drops: frontend.drops,
                sources: frontend.sources.clone().map(Vec::into_boxed_slice),
                choice: choice_of(&frontend.backends),
                inside: frontend.inside_backends.as_deref().map(choice_of),
                known: Arc::clone(&known),
            };
            if self.insert(frontend.key, entry) {
                keys.push(frontend.key);
            }
        }
        keys.sort_unstable();
        if let Some(old) = &old {
            for key in &old.keys {
                if keys.binary_search(key).is_err() {
                    self.remove_frontend(key);
                }
            }
            self.give_back(&old.known, &known);
        }
        let present = Present {
            keys,
            known,
            choices,
        };
        self.services.insert(service, present);
    }

    /// Removes a service; an unknown one is fine.
    pub fn remove(&mut self, service: ServiceId) {
        let Some(old) = self.services.remove(&service) else {
            return;
        };
        for key in &old.keys {
            self.remove_frontend(key);
        }
        self.give_back(&old.known, &[]);
    }

    /// All backends of a service.
    pub fn backends(&self, service: ServiceId) -> &[Backend] {
        let known = self.services.get(&service);
        known.map_or(&[], |it| &**it.known)
    }

    /// Numbers that went from a backend that is gone to another since the last call.
    pub fn take_renumbered(&mut self) -> Vec<BackendId> {
        std::mem::take(&mut self.numbers.given_again)
    }

    /// The backends of a service with their numbers; those that were there keep theirs.
    fn numbered(&mut self, spec: &ServiceSpec, old: Option<&Present>) -> Arc<Known> {
        let mut wanted = spec.backends.clone();
        wanted.sort_unstable();
        wanted.dedup();
        let number = |(address, port)| {
            let present = old.and_then(|it| super::find(&it.known, address, port));
            present.unwrap_or_else(|| Backend {
                address,
                port,
                id: self.numbers.take(),
            })
        };
        let known: Known = wanted.into_iter().map(number).collect();
        match old {
            Some(old) if *old.known == known => Arc::clone(&old.known),
            _ => Arc::new(known),
        }
    }

    fn give_back(&mut self, old: &[Backend], new: &[Backend]) {
        for backend in old {
            if super::find(new, backend.address, backend.port).is_none() {
                self.numbers.give(backend.id);
                self.lost = true;
            }
        }
    }

    fn shard(&mut self, key: &FrontendKey) -> &mut Shard {
        let shards = Arc::make_mut(&mut self.tables.shards);
        if shards.is_empty() {
            shards.resize_with(SHARDS, Arc::default);
        }
        Arc::make_mut(&mut shards[key.shard()])
    }

    /// False when the key is another service's.
    fn insert(&mut self, key: FrontendKey, frontend: Frontend) -> bool {
        let service = frontend.service;
        if self
            .tables
            .get(&key)
            .is_some_and(|it| it.service != service)
        {
            return false;
        }
        let is_direct = frontend.direct;
        let old = self.shard(&key).insert(key, Arc::new(frontend));
        self.tables.len += usize::from(old.is_none());
        let was_direct = old.is_some_and(|it| it.direct);
        self.count_direct(key.address, was_direct, is_direct);
        true
    }

    fn remove_frontend(&mut self, key: &FrontendKey) {
        if let Some(old) = self.shard(key).remove(key) {
            self.tables.len -= 1;
            self.lost = true;
            self.count_direct(key.address, old.direct, false);
        }
    }

    fn count_direct(&mut self, address: IpAddr, was: bool, is: bool) {
        if was == is {
            return;
        }
        let direct = Arc::make_mut(&mut self.tables.direct);
        let count = direct.entry(address).or_default();
        *count = *count + u32::from(is) - u32::from(was);
        if *count == 0 {
            direct.remove(&address);
        }
    }
}

/// The backends of a frontend in the order in which all nodes take them.
fn chosen(known: &[Backend], spec: &ServiceSpec, places: &[u32]) -> Vec<Backend> {
    let listed = places
        .iter()
        .filter_map(|at| spec.backends.get(*at as usize));
    let mut backends: Vec<Backend> = listed
        .filter_map(|(address, port)| super::find(known, *address, *port))
        .collect();
    backends.sort_unstable_by_key(|it| (it.address, it.port));
    backends.dedup();
    backends.truncate(super::BACKENDS_MAX);
    backends
}

fn choice(backends: Vec<Backend>) -> Arc<Choice> {
    let keys: Vec<u64> = backends
        .iter()
        .map(|it| maglev::key(it.address, it.port))
        .collect();
    Arc::new(Choice {
        maglev: Maglev::new(&keys),
        backends: backends.into_boxed_slice(),
    })
}

/// Numbers of backends, the longest unused first: an old connection may still be counted under one.
#[derive(Default)]
struct Numbers {
    free: VecDeque<BackendId>,
    used: u32,
    given_again: Vec<BackendId>,
}

impl Numbers {
    fn take(&mut self) -> BackendId {
        if let Some(id) = self.free.pop_front() {
            self.given_again.push(id);
            return id;
        }
        // 0 is no backend.
        self.used += 1;
        BackendId(self.used)
    }

    fn give(&mut self, id: BackendId) {
        self.free.push_back(id);
    }
}
