//! What the uplink program takes for us.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::IpAddr;

use ipnet::IpNet;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use zerocopy::{Immutable, IntoBytes};

use crate::Error;
use crate::intf::{
    FRONTENDS_MAX, LOCAL_ADDRESSES_MAX, ROUTED_PREFIXES_MAX, SERVICE_ADDRESSES_MAX, WeftAddress4,
    WeftAddress6, WeftFrontend4, WeftFrontend6, WeftPrefix4, WeftPrefix6, WeftTunnel,
};

/// VNIs are 24 bits (RFC 7348 section 5).
const VNI_MAX: u32 = (1 << 24) - 1;

/// Where clients outside the cluster reach a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frontend {
    /// The address.
    pub address: IpAddr,
    /// IP protocol: TCP, UDP or SCTP.
    pub protocol: u8,
    /// The port, host order.
    pub port: u16,
}

/// Whole steering state of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// Tunnel endpoint addresses VXLAN is taken for.
    pub local_addresses: Vec<IpAddr>,
    /// Cluster VNI.
    pub vni: u32,
    /// UDP port of VXLAN, host order.
    pub vxlan_port: u16,
    /// Pod prefixes that arrive unencapsulated.
    pub routed_prefixes: Vec<IpNet>,
    /// Addresses of services that are none of the node's own: fragments to them are taken.
    pub service_addresses: Vec<IpAddr>,
    /// Services for clients outside.
    pub frontends: Vec<Frontend>,
}

impl Steering {
    fn check(&self) -> Result<(), Error> {
        if self.vni > VNI_MAX {
            return Err(Error::Invalid(format!(
                "VNI {} does not fit in 24 bits",
                self.vni
            )));
        }
        if !self.local_addresses.is_empty() && self.vxlan_port == 0 {
            return Err(Error::Invalid(
                "tunnel endpoint addresses without a VXLAN port".to_owned(),
            ));
        }
        let of_family = |v4: bool| {
            let frontends = self.frontends.iter();
            frontends.filter(|it| it.address.is_ipv4() == v4).count()
        };
        let sizes = [
            ("IPv4 services", of_family(true), FRONTENDS_MAX),
            ("IPv6 services", of_family(false), FRONTENDS_MAX),
            (
                "tunnel endpoint addresses",
                self.local_addresses.len(),
                LOCAL_ADDRESSES_MAX,
            ),
            (
                "routed prefixes",
                self.routed_prefixes.len(),
                ROUTED_PREFIXES_MAX,
            ),
            (
                "service addresses",
                self.service_addresses.len(),
                SERVICE_ADDRESSES_MAX,
            ),
        ];
        match sizes.into_iter().find(|(_, given, max)| given > max) {
            Some((what, given, max)) => Err(Error::TooMany { what, given, max }),
            None => Ok(()),
        }
    }
}

/// The steering maps and what is in them.
pub(crate) struct SteeringMaps {
    tunnel: MapHandle,
    local: [MapHandle; 2],
    routed: [MapHandle; 2],
    services: [MapHandle; 2],
    frontends: [MapHandle; 2],
    installed: Steering,
}

impl SteeringMaps {
    /// Takes the maps by name from `map`, which fails for an object that lacks one.
    pub(crate) fn new(
        mut map: impl FnMut(&'static str) -> Result<MapHandle, Error>,
    ) -> Result<Self, Error> {
        Ok(Self {
            tunnel: map("tunnel")?,
            local: [map("local4")?, map("local6")?],
            routed: [map("routed4")?, map("routed6")?],
            services: [map("services4")?, map("services6")?],
            frontends: [map("frontends4")?, map("frontends6")?],
            installed: Steering::default(),
        })
    }

    /// Makes the maps hold `wanted`. New entries go in before the tunnel changes and old ones go
    /// out after it, so that what stays ours never falls to the kernel in between. On an error the
    /// entries of both states may be there; the next call brings it in order.
    pub(crate) fn apply(&mut self, wanted: &Steering) -> Result<(), Error> {
        wanted.check()?;
        let old = std::mem::take(&mut self.installed);
        let result = self.change(&old, wanted);
        self.installed = match result {
            Ok(()) => wanted.clone(),
            Err(_) => union(old, wanted),
        };
        result
    }

    fn change(&self, old: &Steering, wanted: &Steering) -> Result<(), Error> {
        for address in missing(&old.local_addresses, &wanted.local_addresses) {
            set_address(&self.local, address, true)?;
        }
        for prefix in missing(&old.routed_prefixes, &wanted.routed_prefixes) {
            set_prefix(&self.routed, prefix, true)?;
        }
        for address in missing(&old.service_addresses, &wanted.service_addresses) {
            set_address(&self.services, address, true)?;
        }
        for frontend in missing(&old.frontends, &wanted.frontends) {
            set_frontend(&self.frontends, frontend, true)?;
        }
        self.set_tunnel(wanted)?;
        for address in missing(&wanted.local_addresses, &old.local_addresses) {
            set_address(&self.local, address, false)?;
        }
        for prefix in missing(&wanted.routed_prefixes, &old.routed_prefixes) {
            set_prefix(&self.routed, prefix, false)?;
        }
        for address in missing(&wanted.service_addresses, &old.service_addresses) {
            set_address(&self.services, address, false)?;
        }
        for frontend in missing(&wanted.frontends, &old.frontends) {
            set_frontend(&self.frontends, frontend, false)?;
        }
        Ok(())
    }

    fn set_tunnel(&self, wanted: &Steering) -> Result<(), Error> {
        let value = WeftTunnel {
            vni: wanted.vni,
            vxlan_port_be: wanted.vxlan_port.into(),
            pad: 0,
        };
        self.tunnel
            .update(&0_u32.to_ne_bytes(), value.as_bytes(), MapFlags::ANY)
            .map_err(|source| Error::Map {
                doing: format!("set VNI {} and port {}", wanted.vni, wanted.vxlan_port),
                source,
            })
    }
}

fn set_address(maps: &[MapHandle; 2], address: IpAddr, present: bool) -> Result<(), Error> {
    match address {
        IpAddr::V4(address) => set(&maps[0], &WeftAddress4::from(address), present),
        IpAddr::V6(address) => set(&maps[1], &WeftAddress6::from(address), present),
    }
    .map_err(|source| Error::Map {
        doing: format!("steer address {address}"),
        source,
    })
}

fn set_frontend(
    maps: &[MapHandle; 2],
    Frontend {
        address,
        protocol,
        port,
    }: Frontend,
    present: bool,
) -> Result<(), Error> {
    let (port_be, pad) = (port.into(), 0);
    match address {
        IpAddr::V4(v4) => {
            let address = v4.into();
            let key = WeftFrontend4 {
                address,
                port_be,
                protocol,
                pad,
            };
            set(&maps[0], &key, present)
        }
        IpAddr::V6(v6) => {
            let address = v6.into();
            let key = WeftFrontend6 {
                address,
                port_be,
                protocol,
                pad,
            };
            set(&maps[1], &key, present)
        }
    }
    .map_err(|source| Error::Map {
        doing: format!("steer port {port} of {address}, protocol {protocol}"),
        source,
    })
}

fn set_prefix(maps: &[MapHandle; 2], prefix: IpNet, present: bool) -> Result<(), Error> {
    match prefix {
        IpNet::V4(prefix) => set(&maps[0], &WeftPrefix4::from(prefix), present),
        IpNet::V6(prefix) => set(&maps[1], &WeftPrefix6::from(prefix), present),
    }
    .map_err(|source| Error::Map {
        doing: format!("steer prefix {prefix}"),
        source,
    })
}

/// Removing what is not there is success.
fn set<K: IntoBytes + Immutable>(
    map: &MapHandle,
    key: &K,
    present: bool,
) -> Result<(), libbpf_rs::Error> {
    if present {
        return map.update(key.as_bytes(), &[1], MapFlags::ANY);
    }
    match map.delete(key.as_bytes()) {
        Err(error) if error.kind() != libbpf_rs::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Members of `to` that `from` lacks.
fn missing<T: Copy + Eq + Hash>(from: &[T], to: &[T]) -> Vec<T> {
    let from: HashSet<&T> = from.iter().collect();
    to.iter()
        .filter(|item| !from.contains(item))
        .copied()
        .collect()
}

fn union(mut old: Steering, wanted: &Steering) -> Steering {
    old.local_addresses.extend(&wanted.local_addresses);
    old.routed_prefixes.extend(&wanted.routed_prefixes);
    old.service_addresses.extend(&wanted.service_addresses);
    old.frontends.extend(&wanted.frontends);
    old
}
