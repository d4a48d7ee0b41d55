//! One prefix: which of its addresses may be given, and which comes next.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A prefix and the place in it where the next search starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pool {
    prefix: IpNet,
    /// Address given last; the search starts behind it.
    last_given: Option<IpAddr>,
}

impl Pool {
    pub(super) fn new(prefix: IpNet) -> Self {
        Self {
            prefix: prefix.trunc(),
            last_given: None,
        }
    }

    pub(super) fn prefix(&self) -> IpNet {
        self.prefix
    }

    pub(super) fn is_ipv6(&self) -> bool {
        self.prefix.network().is_ipv6()
    }

    pub(super) fn last_given(&self) -> Option<IpAddr> {
        self.last_given
    }

    pub(super) fn given(&mut self, address: IpAddr) {
        self.last_given = Some(address);
    }

    /// The first usable address: weft0's.
    pub(super) fn node_port_address(&self) -> IpAddr {
        self.address(number(self.prefix.network()).saturating_add(1))
    }

    /// Addresses that may be given, free or not.
    pub(super) fn capacity(&self) -> u128 {
        let (first, last) = self.bounds();
        if first > last { 0 } else { last - first + 1 }
    }

    pub(super) fn may_give(&self, address: IpAddr) -> bool {
        let (first, last) = self.bounds();
        let same_family = address.is_ipv6() == self.is_ipv6();
        same_family && (first..=last).contains(&number(address))
    }

    /// The first address behind the one given last, round the end of the prefix, that is not taken.
    /// Every step but the last meets a taken address, so their number bounds the search.
    pub(super) fn next_free(&self, taken: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
        let (first, last) = self.bounds();
        if first > last {
            return None;
        }
        let behind = |address| {
            number(address)
                .checked_add(1)
                .filter(|n| (first..=last).contains(n))
        };
        let start = self.last_given.and_then(behind).unwrap_or(first);
        let mut at = start;
        loop {
            let address = self.address(at);
            if !taken(&address) {
                return Some(address);
            }
            at = if at == last { first } else { at + 1 };
            if at == start {
                return None;
            }
        }
    }

    /// First and last address that may be given: behind the network's (in IPv6 the subnet-router
    /// anycast address, RFC 4291 section 2.6.1) and weft0's, before an IPv4 prefix's broadcast
    /// address. Empty when the first is larger.
    fn bounds(&self) -> (u128, u128) {
        let last = number(self.prefix.broadcast());
        let first = number(self.prefix.network()).saturating_add(2);
        (
            first,
            if self.is_ipv6() {
                last
            } else {
                last.saturating_sub(1)
            },
        )
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.prefix {
            // Numbers of an IPv4 pool fit 32 bits: they lie between its network and broadcast.
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(number as u32)),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}
