//! Which selectors match which workloads, kept from one compilation to the next: only what is new on
//! either side is compared.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::namespace::{Accounts, Namespaces};
use super::number::Numbers;
use super::pod::{Pods, Workload};
use super::selector::{LabelQuery, Labels, Selector};
use super::source::{MemberSource, Numbered, Peer, Sources};

/// Selectors in use, by number.
pub(super) type InUse = BTreeMap<u32, Arc<Numbered>>;

/// Groups of a workload's pods, and who gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Groups {
    pub policies: Vec<Arc<MemberSource>>,
    pub ids: BTreeSet<String>,
}

/// A port number that peers with a port name stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Resolved {
    /// Number of the peers with the name.
    pub peers: u32,
    pub port: u16,
    /// Number of those among them that call this port so.
    pub number: u32,
}

/// What matches a workload.
#[derive(Clone, Debug)]
pub(super) struct Matched {
    pub kind: Arc<Workload>,
    /// None where no SecurityGroupPolicy selects it.
    pub groups: Option<Groups>,
    /// Selectors without a port name, ascending.
    pub selectors: Vec<u32>,
    /// Selectors with a port name, ascending.
    pub resolved: Vec<Resolved>,
}

/// What matches what.
#[derive(Clone, Debug, Default)]
pub(super) struct Matching {
    workloads: BTreeMap<u32, Matched>,
    /// Workloads of which nothing known counts any more.
    stale: BTreeSet<u32>,
    /// Workloads that other selectors match than the time before.
    changed: BTreeSet<u32>,
    in_use: InUse,
    accounts: Accounts,
    member_serials: Vec<u64>,
}

/// A selector whose namespaces match.
enum Candidate<'a> {
    Labelled(u32, &'a LabelQuery, &'a Peer),
    Group(u32, &'a str, &'a Peer),
    Any(u32, &'a Peer),
}

impl Matching {
    /// Takes the workloads there are now.
    pub fn refresh(
        &mut self,
        pods: &Pods,
        changed_namespaces: &BTreeSet<String>,
        sources: &Sources,
        accounts: Accounts,
    ) {
        let members = sources.members.values().flatten();
        let serials: Vec<u64> = members.map(|member| member.serial).collect();
        let same_members = serials == self.member_serials && accounts == self.accounts;
        (self.member_serials, self.accounts) = (serials, accounts);
        for number in pods.touched_workloads() {
            match pods.workloads().get(number) {
                None => drop(self.workloads.remove(number)),
                Some(_) if self.workloads.contains_key(number) => {}
                Some((kind, _)) => {
                    let groups = groups(kind, sources, &self.accounts);
                    let matched = Matched::new(Arc::clone(kind), groups);
                    self.workloads.insert(*number, matched);
                    self.stale.insert(*number);
                }
            }
        }
        if same_members && changed_namespaces.is_empty() {
            return;
        }
        for (number, matched) in &mut self.workloads {
            let groups = groups(&matched.kind, sources, &self.accounts);
            if groups != matched.groups || changed_namespaces.contains(&matched.kind.namespace) {
                matched.groups = groups;
                self.stale.insert(*number);
            }
        }
    }

    /// Workloads that other selectors match than the time before.
    pub fn changed(&self) -> &BTreeSet<u32> {
        &self.changed
    }

    /// What is known of a workload.
    pub fn get(&self, workload: u32) -> Option<&Matched> {
        self.workloads.get(&workload)
    }

    /// All port numbers names stand for, by the peers that have the names.
    pub fn resolved(&self) -> impl Iterator<Item = Resolved> {
        let all = self.workloads.values();
        all.flat_map(|matched| matched.resolved.iter().copied())
    }

    /// Compares the selectors that are in use now with the workloads.
    pub fn select(
        &mut self,
        in_use: InUse,
        namespaces: &Namespaces,
        numbers: &mut Numbers<Numbered>,
    ) {
        let is_new = |number: &u32| !self.in_use.contains_key(number);
        let new: InUse = in_use
            .iter()
            .filter(|(number, _)| is_new(number))
            .map(|(number, thing)| (*number, Arc::clone(thing)))
            .collect();
        let some_gone = self
            .in_use
            .keys()
            .any(|number| !in_use.contains_key(number));
        let mut every = Candidates::among(&in_use);
        let mut added = Candidates::among(&new);
        let stale = std::mem::take(&mut self.stale);
        self.changed.clear();
        for number in &stale {
            if let Some(matched) = self.workloads.get_mut(number) {
                matched.selectors.clear();
                matched.resolved.clear();
                matched.add_all(every.of(&matched.kind.namespace, namespaces), numbers);
                self.changed.insert(*number);
            }
        }
        if !new.is_empty() || some_gone {
            let kept = self.workloads.iter_mut();
            for (number, matched) in kept.filter(|(number, _)| !stale.contains(number)) {
                let gone = some_gone && matched.forget(&in_use);
                let candidates = added.of(&matched.kind.namespace, namespaces);
                if matched.add_all(candidates, numbers) || gone {
                    self.changed.insert(*number);
                }
            }
        }
        self.in_use = in_use;
    }
}

/// Groups of a workload's pods; None where no SecurityGroupPolicy selects them.
fn groups(kind: &Workload, sources: &Sources, accounts: &Accounts) -> Option<Groups> {
    let no_labels = Labels::new();
    let mut groups = Groups::default();
    for source in sources.members.get(&kind.namespace).into_iter().flatten() {
        let account = kind.account.as_ref().and_then(|name| {
            let key = (kind.namespace.clone(), name.clone());
            accounts.get(&key)
        });
        let membership = &source.membership;
        if membership.selects(&kind.labels, account.unwrap_or(&no_labels)) {
            groups.ids.extend(membership.groups.iter().cloned());
            groups.policies.push(Arc::clone(source));
        }
    }
    (!groups.policies.is_empty()).then_some(groups)
}

impl Matched {
    fn new(kind: Arc<Workload>, groups: Option<Groups>) -> Self {
        Self {
            kind,
            groups,
            selectors: Vec::new(),
            resolved: Vec::new(),
        }
    }

    /// Drops selectors that are not in use; tells whether there were any.
    fn forget(&mut self, in_use: &InUse) -> bool {
        let before = (self.selectors.len(), self.resolved.len());
        let peers = |resolved: &Resolved| in_use.contains_key(&resolved.peers);
        self.selectors.retain(|number| in_use.contains_key(number));
        self.resolved.retain(peers);
        before != (self.selectors.len(), self.resolved.len())
    }

    /// Adds those of the candidates that match; tells whether any does.
    fn add_all(&mut self, candidates: &[Candidate<'_>], numbers: &mut Numbers<Numbered>) -> bool {
        let before = (self.selectors.len(), self.resolved.len());
        for candidate in candidates {
            if candidate.matches(self) {
                self.add(candidate.number(), candidate.peer(), numbers);
            }
        }
        self.selectors.sort_unstable();
        self.resolved.sort_unstable();
        before != (self.selectors.len(), self.resolved.len())
    }

    fn add(&mut self, peers: u32, peer: &Peer, numbers: &mut Numbers<Numbered>) {
        let Some(name) = &peer.port else {
            return self.selectors.push(peers);
        };
        if let Some(port) = self.kind.ports.get(name).copied() {
            let (number, _) = numbers.of(Numbered::Resolved { peers, port });
            self.resolved.push(Resolved {
                peers,
                port,
                number,
            });
        }
    }
}

/// Selectors by the namespaces they can match pods of.
struct Candidates<'a> {
    selectors: &'a InUse,
    by_namespace: HashMap<String, Vec<Candidate<'a>>>,
}

impl<'a> Candidates<'a> {
    fn among(selectors: &'a InUse) -> Self {
        Self {
            selectors,
            by_namespace: HashMap::new(),
        }
    }

    fn of(&mut self, namespace: &str, namespaces: &Namespaces) -> &[Candidate<'a>] {
        if self.selectors.is_empty() {
            return &[];
        }
        if !self.by_namespace.contains_key(namespace) {
            let labels = namespaces.labels(namespace);
            let found = self
                .selectors
                .iter()
                .filter_map(|(number, thing)| match &**thing {
                    Numbered::Peer(peer) => Candidate::of(*number, peer, namespace, &labels),
                    Numbered::Resolved { .. } => None,
                });
            let found = found.collect();
            self.by_namespace.insert(namespace.to_owned(), found);
        }
        self.by_namespace.get(namespace).map_or(&[], Vec::as_slice)
    }
}

impl<'a> Candidate<'a> {
    /// None for peers that are no pods, and for pods of other namespaces.
    fn of(number: u32, peer: &'a Peer, namespace: &str, labels: &Labels) -> Option<Self> {
        match &peer.selector {
            None => Some(Self::Any(number, peer)),
            Some(Selector::Pods(query)) => {
                let matches = query.namespaces.matches(namespace, labels);
                matches.then_some(Self::Labelled(number, &query.pods, peer))
            }
            Some(Selector::Group(id)) => Some(Self::Group(number, id, peer)),
            Some(Selector::Block(_) | Selector::Nodes(_)) => None,
        }
    }

    fn matches(&self, matched: &Matched) -> bool {
        match self {
            Self::Labelled(_, query, _) => query.matches(&matched.kind.labels),
            Self::Group(_, id, _) => {
                let groups = matched.groups.as_ref();
                groups.is_some_and(|groups| groups.ids.contains(*id))
            }
            Self::Any(..) => true,
        }
    }

    fn number(&self) -> u32 {
        match self {
            Self::Labelled(number, ..) | Self::Group(number, ..) | Self::Any(number, _) => *number,
        }
    }

    fn peer(&self) -> &'a Peer {
        match self {
            Self::Labelled(_, _, peer) | Self::Group(_, _, peer) | Self::Any(_, peer) => peer,
        }
    }
}

impl PartialEq for MemberSource {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl Eq for MemberSource {}
