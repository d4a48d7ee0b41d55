//! Which addresses are services, and who answers there.
//!
//! A frontend is found by address, protocol and port in a map of many shards, so that a new version copies the shards
//! that changed and shares the others. What it holds is shared with the other frontends of the service that have the
//! same backends.
//!
//! | file | what |
//! |---|---|
//! | `maglev.rs` | the consistent choice of a backend |
//! | `affinity.rs` | which backend a client had last |
//! | `counters.rs` | connections by backend |
//! | `builder.rs` | makes versions of all this |

mod affinity;
mod builder;
mod counters;
mod maglev;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnet::IpNet;

pub use affinity::Affinity;
pub use builder::{FrontendSpec, ServiceBuilder, ServiceSpec};
pub use counters::{BACKENDS_COUNTED_MAX, BackendCounters};
pub use maglev::BACKENDS_MAX;

use maglev::Maglev;

/// Shards of the map: with 10,000 services of two ports each, one has 80 frontends and is copied in some
/// microseconds.
const SHARDS: usize = 256;

/// A service: the caller's number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub u32);

/// A backend of a service, for counting: dense, and given again when the backend is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u32);

impl BackendId {
    /// No backend.
    pub const NONE: Self = Self(0);
}

/// How a backend is chosen for a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// By a table of the backends and the connection's hash.
    #[default]
    Maglev,
    /// By chance.
    Random,
    /// The one with the fewest connections of this worker.
    LeastConnections,
}

/// Where clients knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendKey {
    /// The address; unspecified for any of this node.
    pub address: IpAddr,
    /// IP protocol: TCP, UDP or SCTP.
    pub protocol: u8,
    /// The port.
    pub port: u16,
}

/// What stands in keys for every address a node has, of this one's family.
pub(crate) const fn any_of_node(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

impl FrontendKey {
    /// The same port on any address of this node.
    #[must_use]
    pub const fn of_node(self) -> Self {
        let address = any_of_node(self.address);
        Self { address, ..self }
    }

    /// The map's own hash is for within a shard.
    const fn shard(&self) -> usize {
        let bits = match self.address {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(address) => address.to_bits() as u32,
        };
        let mixed =
            (bits ^ (self.port as u32) << 16 ^ self.protocol as u32).wrapping_mul(0x9e37_79b1);
        (mixed >> 24) as usize % SHARDS
    }
}

/// Who answers at a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Its number among all backends.
    pub id: BackendId,
}

/// What a connection goes by when its backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chance {
    /// The same for all packets of the connection, on all nodes.
    pub hash: u64,
    /// Different for each packet.
    pub random: u64,
}

/// Backends new connections are balanced over.
#[derive(Debug)]
struct Choice {
    /// By address and port.
    backends: Box<[Backend]>,
    maglev: Maglev,
}

/// All backends of a service, by address and port.
type Known = Box<[Backend]>;

/// A frontend as it is found.
#[derive(Clone, Debug)]
pub struct Frontend {
    /// Its service.
    pub service: ServiceId,
    /// How a backend is chosen.
    pub algorithm: Algorithm,
    /// Seconds a client keeps its backend; none without affinity.
    pub affinity_seconds: Option<u32>,
    /// The client's address stays whatever happens.
    pub keeps_source: bool,
    /// Other nodes' backends answer clients outside themselves.
    pub direct: bool,
    /// Where there is no backend nothing is answered.
    pub drops: bool,
    /// Who may connect; anybody without.
    sources: Option<Box<[IpNet]>>,
    choice: Arc<Choice>,
    /// For clients inside, where that is another one.
    inside: Option<Arc<Choice>>,
    known: Arc<Known>,
}

/// Where a client is, as far as a frontend may tell clients apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A pod of this node, or the node itself.
    Inside,
    /// Anybody else.
    Outside,
}

impl Frontend {
    /// Whether this client may connect.
    pub fn admits(&self, client: IpAddr) -> bool {
        let listed = |sources: &[IpNet]| sources.iter().any(|it| it.contains(&client));
        self.sources.as_deref().is_none_or(listed)
    }

    fn choice(&self, client: Client) -> &Choice {
        match (&self.inside, client) {
            (Some(inside), Client::Inside) => inside,
            _ => &self.choice,
        }
    }

    /// Chooses a backend for a new connection; `load` says how many connections each has. `None`: there is none.
    #[inline]
    pub fn choose(
        &self,
        client: Client,
        chance: Chance,
        load: impl Fn(BackendId) -> u32,
    ) -> Option<Backend> {
        let Choice { backends, maglev } = self.choice(client);
        let by_chance = || ((u128::from(chance.random) * backends.len() as u128) >> 64) as usize;
        let at = match self.algorithm {
            Algorithm::Maglev => maglev.pick(chance.hash),
            Algorithm::Random => by_chance(),
            Algorithm::LeastConnections => {
                // From anywhere, so that equals take turns.
                let from = by_chance();
                let order = (from..backends.len()).chain(0..from);
                order.min_by_key(|at| load(backends[*at].id))?
            }
        };
        backends.get(at).copied()
    }

    /// Chooses one of the backends that are here, the same for the same hash as long as it is there (highest random
    /// weight, Thaler and Ravishankar 1998).
    pub fn choose_here(&self, hash: u64, is_here: impl Fn(IpAddr) -> bool) -> Option<Backend> {
        let weight = |it: &&Backend| {
            let mixed = (hash ^ u64::from(it.id.0)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed ^ mixed >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        };
        let here = self.choice.backends.iter().filter(|it| is_here(it.address));
        here.max_by_key(weight).copied()
    }

    /// The backend with this number among all of the service.
    pub fn known_as(&self, id: BackendId) -> Option<Backend> {
        self.known.iter().find(|it| it.id == id).copied()
    }

    /// The backend of an address among those that new connections may go to.
    pub fn at(&self, client: Client, address: IpAddr) -> Option<Backend> {
        let backends = &self.choice(client).backends;
        let at = backends.partition_point(|it| it.address < address);
        backends.get(at).filter(|it| it.address == address).copied()
    }

    /// The backend of an address and port among all of the service.
    pub fn known(&self, address: IpAddr, port: u16) -> Option<Backend> {
        find(&self.known, address, port)
    }

    /// Backends new connections are balanced over, by address and port.
    pub fn backends(&self) -> &[Backend] {
        &self.choice.backends
    }
}

fn find(backends: &[Backend], address: IpAddr, port: u16) -> Option<Backend> {
    let order = |it: &Backend| (it.address, it.port).cmp(&(address, port));
    let at = backends.binary_search_by(order).ok()?;
    Some(backends[at])
}

type Shard = HashMap<FrontendKey, Arc<Frontend>, FixedState>;

/// One version of all services. Cloning copies a pointer.
#[derive(Clone, Default)]
pub struct ServiceTables {
    epoch: u32,
    len: usize,
    /// None, or [`SHARDS`].
    shards: Arc<Vec<Arc<Shard>>>,
    /// Frontends of each address whose backends answer clients themselves.
    direct: Arc<HashMap<IpAddr, u32, FixedState>>,
}

impl ServiceTables {
    /// Number of the version; changes only when some backend or frontend is gone.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The frontend of a key.
    #[inline]
    pub fn get(&self, key: &FrontendKey) -> Option<&Frontend> {
        let shard = self.shards.get(key.shard())?;
        shard.get(key).map(|it| &**it)
    }

    /// Whether backends of some service at exactly this address answer clients themselves.
    pub fn is_direct(&self, address: IpAddr) -> bool {
        self.direct.contains_key(&address)
    }

    /// Frontends there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no frontend.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}
