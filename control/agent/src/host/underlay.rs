//! The underlay's ways to other nodes, as the kernel's routing and neighbour tables have them.
//!
//! Whatever routes the underlay (static routes, DHCP, a routing daemon, rules) writes into the
//! kernel, so that is where it is read: one lookup per tunnel endpoint, one neighbour entry per next
//! hop, followed live through netlink notifications. The entries are kept alive by the kernel itself
//! where it can (`managed` neighbours, since 5.16), because no packet of ours ever asks it to: what
//! the dataplane sends by AF_XDP does not pass the neighbour table.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteProtocol;
use rtnetlink::MulticastGroup;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use weft_api::object::UnderlayPath;

use super::link::{Link, as_link};
use super::neighbour::{self, Entry, Hop};
use super::next_hop::{self, Way};
use super::sysctl::is_own_interface;
use super::{HostError, Netlink, RT_PROTOCOL, addresses};

/// Everything that can change a way to another node.
const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv6Rule,
];

/// Notifications come in heaps (a link that goes down takes its routes along): wait this long for
/// the rest of one. Longer delays the way around a failure, shorter looks everything up repeatedly.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// Some changes are not announced: a path MTU the kernel learned, a nexthop object that was
/// replaced. They are found this late.
const REFRESH: Duration = Duration::from_secs(15);

/// Pause after the kernel refused to list its tables.
const RETRY: Duration = Duration::from_secs(1);

/// What ways are wanted to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Tunnel endpoints of the other nodes.
    pub vteps: BTreeSet<IpAddr>,
    /// This node's addresses; the first of each family is the outer source.
    pub local: Vec<IpAddr>,
}

/// What the kernel says about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The local addresses this is about.
    pub local: Vec<IpAddr>,
    /// Ways, by tunnel endpoint; one without a route is missing.
    pub paths: Vec<UnderlayPath>,
    /// Interfaces that hold a local address.
    pub interfaces: Vec<String>,
    /// The smallest MTU of those, in bytes.
    pub link_mtu: Option<u32>,
    /// What keeps packets from other nodes, a sentence each.
    pub problems: Vec<String>,
}

/// Follows the ways to `targets` and sends a [`View`] at first and after every change, until either
/// side of the channels is dropped.
///
/// # Errors
/// [`HostError::Netlink`] when the kernel gives no socket; later refusals are logged and tried again.
pub async fn follow(
    mut targets: watch::Receiver<Targets>,
    views: mpsc::Sender<View>,
) -> Result<(), HostError> {
    let mut underlay = Underlay::new(Netlink::open()?);
    let (_socket, events) = Netlink::follow(&GROUPS)?;
    let mut events = pin!(events);
    let mut last = None;
    let mut change = Change::Routes;
    loop {
        let wanted = targets.borrow_and_update().clone();
        let view = match underlay.view(&wanted, change).await {
            Ok(view) => view,
            Err(error) => {
                tracing::warn!(%error, "cannot read the underlay's tables; trying again");
                tokio::time::sleep(RETRY).await;
                change = Change::Routes;
                continue;
            }
        };
        if last.as_ref() != Some(&view) {
            last = Some(view.clone());
            if views.send(view).await.is_err() {
                return Ok(());
            }
        }
        let refresh = sleep_until(Instant::now() + REFRESH);
        change = tokio::select! {
            changed = targets.changed() => match changed {
                Ok(()) => Change::Routes,
                Err(_) => return Ok(()),
            },
            change = next_change(&mut events, &underlay) => change,
            () = refresh => Change::Routes,
        };
    }
}

/// What has to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Nothing,
    Neighbours,
    Routes,
}

/// Waits for a notification that matters, and a moment for those that follow it.
async fn next_change<S>(events: &mut S, underlay: &Underlay) -> Change
where
    S: Stream<Item = NetlinkPayload<RouteNetlinkMessage>> + Unpin,
{
    let mut change = Change::Nothing;
    let mut deadline = None;
    loop {
        let event = match deadline {
            None => events.next().await,
            Some(deadline) => match tokio::time::timeout_at(deadline, events.next()).await {
                Ok(event) => event,
                Err(_) => return change,
            },
        };
        let Some(event) = event else {
            // The socket is gone, which only the end of the runtime does.
            return std::future::pending().await;
        };
        change = change.max(underlay.what_changed(&event));
        if change != Change::Nothing && deadline.is_none() {
            deadline = Some(Instant::now() + DEBOUNCE);
        }
    }
}

struct Underlay {
    netlink: Netlink,
    /// Way to each tunnel endpoint, or why there is none.
    ways: BTreeMap<IpAddr, Result<Way, String>>,
    links: HashMap<u32, Link>,
    local: Vec<IpAddr>,
    /// When each neighbour entry was last asked for.
    asked: HashMap<Hop, Instant>,
    /// The part of the view that does not depend on neighbours.
    base: View,
}

impl Underlay {
    fn new(netlink: Netlink) -> Self {
        Self {
            netlink,
            ways: BTreeMap::new(),
            links: HashMap::new(),
            local: Vec::new(),
            asked: HashMap::new(),
            base: View::default(),
        }
    }

    fn what_changed(&self, event: &NetlinkPayload<RouteNetlinkMessage>) -> Change {
        let message = match event {
            NetlinkPayload::InnerMessage(message) => message,
            // Notifications were lost.
            NetlinkPayload::Overrun(_) => return Change::Routes,
            _ => return Change::Nothing,
        };
        match message {
            RouteNetlinkMessage::NewNeighbour(entry) | RouteNetlinkMessage::DelNeighbour(entry) => {
                let ours =
                    neighbour::hop_of(entry).is_some_and(|hop| self.asked.contains_key(&hop));
                if ours {
                    Change::Neighbours
                } else {
                    Change::Nothing
                }
            }
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route)
                if route.header.protocol == RouteProtocol::Other(RT_PROTOCOL) =>
            {
                Change::Nothing
            }
            // Pods' ports come and go all the time.
            RouteNetlinkMessage::NewLink(_) => match as_link(message.clone()) {
                Some(link) if is_own_interface(&link.name) => Change::Nothing,
                Some(link) if self.links.get(&link.index) == Some(&link) => Change::Nothing,
                _ => Change::Routes,
            },
            RouteNetlinkMessage::DelLink(link) => {
                let known = self.links.contains_key(&link.header.index);
                if known {
                    Change::Routes
                } else {
                    Change::Nothing
                }
            }
            _ => Change::Routes,
        }
    }

    async fn view(&mut self, targets: &Targets, change: Change) -> Result<View, HostError> {
        if change == Change::Routes {
            self.read_links(&targets.local).await?;
            self.read_ways(targets).await?;
        }
        let entries = neighbour::list(&self.netlink).await?;
        self.keep_neighbours(&entries).await;
        let mut view = self.base.clone();
        for (vtep, way) in &self.ways {
            match self.path(*vtep, way, &entries) {
                Ok(path) => view.paths.push(path),
                Err(problem) => view.problems.push(problem),
            }
        }
        view.problems.extend(self.silent_hops(&entries));
        Ok(view)
    }

    async fn read_links(&mut self, local: &[IpAddr]) -> Result<(), HostError> {
        let links = self.netlink.links().await?;
        let others = links.into_iter().filter(|l| !is_own_interface(&l.name));
        self.links = others.map(|link| (link.index, link)).collect();
        let held = addresses::list(&self.netlink).await?;
        let local_held = held.iter().filter(|held| local.contains(&held.address));
        self.local = local_held.clone().map(|held| held.address).collect();
        let holders: BTreeSet<u32> = local_held.map(|held| held.index).collect();
        let holders = holders.iter().filter_map(|index| self.links.get(index));
        self.base = View {
            local: local.to_vec(),
            link_mtu: holders.clone().map(|link| link.mtu).min(),
            interfaces: holders.map(|link| link.name.clone()).collect(),
            ..View::default()
        };
        Ok(())
    }

    async fn read_ways(&mut self, targets: &Targets) -> Result<(), HostError> {
        self.ways.clear();
        for vtep in &targets.vteps {
            let same_family = |a: &&IpAddr| a.is_ipv4() == vtep.is_ipv4();
            let first = targets.local.iter().find(same_family).copied();
            // An address the kernel does not have (a node behind NAT) cannot be looked up from.
            let source = first.filter(|address| self.local.contains(address));
            let way = next_hop::look_up(&self.netlink, *vtep, source).await?;
            self.ways.insert(*vtep, way);
        }
        Ok(())
    }

    /// Asks the kernel to resolve and keep every next hop, and to forget those no longer used.
    async fn keep_neighbours(&mut self, entries: &HashMap<Hop, Entry>) {
        let now = Instant::now();
        let hops: BTreeSet<Hop> = self.ways.values().flatten().map(|way| way.hop).collect();
        self.asked.retain(|hop, _| hops.contains(hop));
        for hop in &hops {
            let asked = self.asked.get(hop).map(|then| now.duration_since(*then));
            if neighbour::needs_asking(entries.get(hop), asked) {
                if let Err(error) = neighbour::keep(&self.netlink, *hop).await {
                    tracing::debug!(%error, "neighbour not kept");
                }
                self.asked.insert(*hop, now);
            } else {
                self.asked.entry(*hop).or_insert(now);
            }
        }
        for (hop, entry) in entries {
            if entry.is_ours() && !hops.contains(hop) {
                neighbour::forget(&self.netlink, *hop).await;
            }
        }
    }

    /// Next hops that do not answer, each once however many nodes are behind it.
    fn silent_hops(&self, entries: &HashMap<Hop, Entry>) -> Vec<String> {
        let mut behind: BTreeMap<Hop, Vec<IpAddr>> = BTreeMap::new();
        for (vtep, way) in &self.ways {
            if let Ok(way) = way
                && entries.get(&way.hop).is_some_and(|entry| entry.failed)
            {
                behind.entry(way.hop).or_default().push(*vtep);
            }
        }
        let sentence = |(hop, vteps): (Hop, Vec<IpAddr>)| {
            let link = self.links.get(&hop.index)?;
            let more = match vteps.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            Some(format!(
                "the next hop {} does not answer on {}; behind it: node address {}{more}",
                hop.address, link.name, vteps[0]
            ))
        };
        behind.into_iter().filter_map(sentence).collect()
    }

    fn path(
        &self,
        vtep: IpAddr,
        way: &Result<Way, String>,
        entries: &HashMap<Hop, Entry>,
    ) -> Result<UnderlayPath, String> {
        let way = way.as_ref().map_err(Clone::clone)?;
        let link = self.links.get(&way.hop.index);
        let Some((link, source_mac)) = link.and_then(|link| Some((link, link.mac?))) else {
            return Err(format!(
                "the route to node address {vtep} leaves by an interface that is weft's own or has \
                 no Ethernet address"
            ));
        };
        Ok(UnderlayPath {
            vtep,
            ifname: link.name.clone(),
            source: way.source,
            source_mac,
            next_hop_mac: entries.get(&way.hop).and_then(|entry| entry.mac),
            mtu: way.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
        })
    }
}
