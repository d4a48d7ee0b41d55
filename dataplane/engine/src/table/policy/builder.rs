//! Makes versions of the policies out of identities, addresses and rules. Used by one thread, off the
//! packet path.
//!
//! A change touches what depends on it: an identity the local endpoints whose rules use one of its
//! selectors, an address its own prefix, rules their own endpoint.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;

use super::peers::PeerMap;
use super::ports::{PortTable, PortTables};
use super::rule::Rule;
use super::{Endpoint, IdentityIndex, PolicyTables};

/// Classes of peers remembered for one list of rules; beyond, all are worked out anew. Far more than the
/// sets of selectors real pods have.
const CLASSES_MAX: usize = 4096;

/// Who an identity is.
struct Identity {
    index: IdentityIndex,
    /// Objects that speak of it.
    uses: u32,
    /// Ascending; `None` while the identity itself is not known: then it is world.
    selectors: Option<Vec<u32>>,
}

/// One list of rules.
#[derive(Default)]
struct Rules {
    rules: Vec<Rule>,
    /// Selectors in it, ascending.
    selectors: Vec<u32>,
    /// Tables by those of the selectors that match the peer.
    classes: HashMap<Vec<u32>, Arc<PortTable>>,
}

/// Rules of one identity's pods.
struct Subject {
    ingress: Rules,
    egress: Rules,
}

/// The state the next version is made of.
#[derive(Default)]
pub struct PolicyBuilder {
    tables: PolicyTables,
    identities: HashMap<u32, Identity>,
    /// Places given back.
    free: BTreeSet<u32>,
    addresses: HashMap<IpNet, u32>,
    subjects: BTreeMap<u32, Subject>,
    /// Identities by selector that matches them.
    matching: HashMap<u32, BTreeSet<u32>>,
    /// Subjects by selector that their rules use.
    using: HashMap<u32, BTreeSet<u32>>,
    ports: PortTables,
    changed: bool,
}

impl PolicyBuilder {
    /// Whose addresses are local changed: what was decided without a pod's policy, when the address was
    /// nobody's, has to be decided again with it.
    pub(crate) fn ports_changed(&mut self) {
        self.changed = true;
    }

    /// The next version; its epoch is another one if anything changed.
    pub fn build(&mut self) -> PolicyTables {
        if std::mem::take(&mut self.changed) || self.tables.epoch == 0 {
            // 0 is no version.
            self.tables.epoch = self.tables.epoch.checked_add(1).unwrap_or(1);
        }
        self.tables.clone()
    }

    /// Adds, replaces or removes an identity: the numbers of the selectors that match it, ascending.
    pub fn set_identity(&mut self, number: u32, selectors: Option<Vec<u32>>) {
        let old = self
            .identities
            .get(&number)
            .and_then(|it| it.selectors.clone());
        if old == selectors {
            return;
        }
        self.changed = true;
        if old.is_none() {
            self.acquire(number);
        }
        let touched: BTreeSet<u32> = symmetric_difference(
            old.as_deref().unwrap_or_default(),
            selectors.as_deref().unwrap_or_default(),
        )
        .collect();
        for selector in &touched {
            let was = old.as_ref().is_some_and(|it| it.contains(selector));
            self.note_match(*selector, number, !was);
        }
        let (known, was_known) = (selectors.is_some(), old.is_some());
        if let Some(identity) = self.identities.get_mut(&number) {
            identity.selectors = selectors;
        }
        self.map_identity(number, &touched);
        if known != was_known {
            self.show_subject(number);
        }
        if !known {
            self.release(number);
        }
    }

    /// Says whose addresses these are, or that they are nobody's.
    pub fn set_address(&mut self, prefix: IpNet, identity: Option<u32>) {
        let prefix = prefix.trunc();
        let old = self.addresses.get(&prefix).copied();
        if old == identity {
            return;
        }
        self.changed = true;
        match identity {
            Some(number) => {
                self.acquire(number);
                self.addresses.insert(prefix, number);
                if let Some(identity) = self.identities.get(&number) {
                    self.tables.insert(prefix, identity.index);
                }
            }
            None => {
                self.addresses.remove(&prefix);
                self.tables.remove(prefix);
            }
        }
        if let Some(old) = old {
            self.release(old);
        }
    }

    /// Adds or replaces the rules of an identity's pods.
    pub fn set_rules(&mut self, number: u32, ingress: Vec<Rule>, egress: Vec<Rule>) {
        if let Some(subject) = self.subjects.get(&number) {
            if subject.ingress.rules == ingress && subject.egress.rules == egress {
                return;
            }
            self.forget_uses(number);
        } else {
            self.acquire(number);
        }
        self.changed = true;
        let subject = Subject {
            ingress: Rules::new(ingress),
            egress: Rules::new(egress),
        };
        for selector in subject.selectors() {
            self.using.entry(selector).or_default().insert(number);
        }
        self.subjects.insert(number, subject);
        self.show_subject(number);
    }

    /// Removes the rules of an identity's pods, which are cut off then.
    pub fn remove_rules(&mut self, number: u32) {
        if !self.subjects.contains_key(&number) {
            return;
        }
        self.changed = true;
        self.forget_uses(number);
        self.subjects.remove(&number);
        self.show_subject(number);
        self.release(number);
    }

    fn forget_uses(&mut self, number: u32) {
        let selectors = self
            .subjects
            .get(&number)
            .map(|it| it.selectors().collect::<Vec<_>>());
        for selector in selectors.unwrap_or_default() {
            if let Some(users) = self.using.get_mut(&selector) {
                users.remove(&number);
                if users.is_empty() {
                    self.using.remove(&selector);
                }
            }
        }
    }

    fn note_match(&mut self, selector: u32, number: u32, matches: bool) {
        let matched = self.matching.entry(selector).or_default();
        if matches {
            matched.insert(number);
        } else {
            matched.remove(&number);
            if matched.is_empty() {
                self.matching.remove(&selector);
            }
        }
    }

    /// Gives an identity its place when the first object speaks of it.
    fn acquire(&mut self, number: u32) {
        if let Some(identity) = self.identities.get_mut(&number) {
            identity.uses += 1;
            return;
        }
        // Place 0 is the world's.
        let next = self.identities.len() as u32 + self.free.len() as u32 + 1;
        let index = IdentityIndex(self.free.pop_first().unwrap_or(next));
        debug_assert!(
            index != IdentityIndex::WORLD,
            "nobody takes the world's place"
        );
        self.identities.insert(
            number,
            Identity {
                index,
                uses: 1,
                selectors: None,
            },
        );
    }

    fn release(&mut self, number: u32) {
        if let Some(identity) = self.identities.get_mut(&number) {
            identity.uses -= 1;
            if identity.uses == 0 {
                self.free.insert(identity.index.0);
                self.identities.remove(&number);
            }
        }
    }

    /// Puts an identity right in the maps of those whose rules use one of the `touched` selectors.
    fn map_identity(&mut self, number: u32, touched: &BTreeSet<u32>) {
        let Some(identity) = self.identities.get(&number) else {
            return;
        };
        let selectors = identity.selectors.as_deref().unwrap_or_default();
        let users: BTreeSet<u32> = touched
            .iter()
            .filter_map(|selector| self.using.get(selector))
            .flatten()
            .copied()
            .collect();
        let endpoints = Arc::make_mut(&mut self.tables.endpoints);
        for user in users {
            let place = self.identities.get(&user).map(|it| it.index.0);
            let (Some(subject), Some(endpoint)) = (
                self.subjects.get_mut(&user),
                place.and_then(|place| endpoints.get_mut(&place)),
            ) else {
                continue;
            };
            let endpoint = Arc::make_mut(endpoint);
            let ports = &mut self.ports;
            for (rules, peers) in [
                (&mut subject.ingress, &mut endpoint.ingress),
                (&mut subject.egress, &mut endpoint.egress),
            ] {
                if intersects(&rules.selectors, touched) {
                    peers.set(identity.index, rules.ports_of(selectors, ports));
                }
            }
        }
    }

    /// Shows the rules of an identity to the packet path while both are known.
    fn show_subject(&mut self, number: u32) {
        let Some(identity) = self.identities.get(&number) else {
            return;
        };
        let place = identity.index.0;
        let known = identity.selectors.is_some();
        let endpoint = match self.subjects.get_mut(&number) {
            Some(subject) if known => {
                let (matching, identities) = (&self.matching, &self.identities);
                let ports = &mut self.ports;
                Some(Arc::new(Endpoint {
                    ingress: subject.ingress.peers(matching, identities, ports),
                    egress: subject.egress.peers(matching, identities, ports),
                }))
            }
            _ => None,
        };
        let endpoints = Arc::make_mut(&mut self.tables.endpoints);
        match endpoint {
            Some(endpoint) => {
                endpoints.insert(place, endpoint);
            }
            None => {
                endpoints.remove(&place);
            }
        }
    }
}

impl Subject {
    fn selectors(&self) -> impl Iterator<Item = u32> + '_ {
        let both = self.ingress.selectors.iter().chain(&self.egress.selectors);
        both.copied()
    }
}

impl Rules {
    fn new(rules: Vec<Rule>) -> Self {
        let selectors: BTreeSet<u32> = rules.iter().filter_map(|rule| rule.peer).collect();
        Self {
            rules,
            selectors: selectors.into_iter().collect(),
            classes: HashMap::new(),
        }
    }

    /// The map of all peers.
    fn peers(
        &mut self,
        matching: &HashMap<u32, BTreeSet<u32>>,
        identities: &HashMap<u32, Identity>,
        ports: &mut PortTables,
    ) -> PeerMap {
        let mut peers = PeerMap::new(self.table(&[], ports));
        let named: BTreeSet<u32> = self
            .selectors
            .iter()
            .filter_map(|selector| matching.get(selector))
            .flatten()
            .copied()
            .collect();
        for identity in named.iter().filter_map(|number| identities.get(number)) {
            let selectors = identity.selectors.as_deref().unwrap_or_default();
            peers.set(identity.index, self.ports_of(selectors, ports));
        }
        peers
    }

    /// The table for a peer that these selectors match; `None`: that of whoever none matches.
    fn ports_of(&mut self, selectors: &[u32], ports: &mut PortTables) -> Option<Arc<PortTable>> {
        let class: Vec<u32> = self
            .selectors
            .iter()
            .filter(|selector| selectors.binary_search(selector).is_ok())
            .copied()
            .collect();
        (!class.is_empty()).then(|| self.table(&class, ports))
    }

    fn table(&mut self, class: &[u32], ports: &mut PortTables) -> Arc<PortTable> {
        if let Some(known) = self.classes.get(class) {
            return Arc::clone(known);
        }
        let matches = |rule: &&Rule| {
            rule.peer
                .is_none_or(|selector| class.binary_search(&selector).is_ok())
        };
        let table = ports.share(PortTable::of(self.rules.iter().filter(matches)));
        if self.classes.len() >= CLASSES_MAX {
            self.classes.clear();
        }
        self.classes.insert(class.to_vec(), Arc::clone(&table));
        table
    }
}

/// What is in one of two ascending lists and not in the other.
fn symmetric_difference(a: &[u32], b: &[u32]) -> impl Iterator<Item = u32> {
    let only = |a: &[u32], b: &[u32]| -> Vec<u32> {
        let missing = a.iter().filter(|it| b.binary_search(it).is_err());
        missing.copied().collect()
    };
    only(a, b).into_iter().chain(only(b, a))
}

fn intersects(list: &[u32], set: &BTreeSet<u32>) -> bool {
    list.iter().any(|it| set.contains(it))
}
