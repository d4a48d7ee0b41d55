//! Ethernet addresses as text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An Ethernet address, written `02:77:65:66:74:01`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MacAddr(pub [u8; 6]);

/// A text that is not an Ethernet address.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not an Ethernet address of the form 02:00:00:00:00:01")]
pub struct MacParseError(String);

impl MacAddr {
    /// The address of a node's tunnel endpoint, derived from its underlay address so that no node
    /// has to announce it: `02:57` and the IPv4 address, or `06:57` and the last 32 bits of an
    /// IPv6 address folded with the rest.
    pub fn of_vtep(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::with_prefix(0x02, v4),
            IpAddr::V6(v6) => Self::with_prefix(0x06, fold(v6)),
        }
    }

    /// A pod's address, derived from its first IP so that a pod that comes back is known again.
    pub fn of_pod(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::with_second(0x02, 0x50, v4),
            IpAddr::V6(v6) => Self::with_second(0x06, 0x50, fold(v6)),
        }
    }

    fn with_prefix(first: u8, tail: Ipv4Addr) -> Self {
        Self::with_second(first, 0x57, tail)
    }

    fn with_second(first: u8, second: u8, tail: Ipv4Addr) -> Self {
        let [a, b, c, d] = tail.octets();
        Self([first, second, a, b, c, d])
    }
}

fn fold(address: Ipv6Addr) -> Ipv4Addr {
    let words = address.octets();
    let mut tail = [0_u8; 4];
    for (i, byte) in words.iter().enumerate() {
        tail[i % 4] ^= byte.rotate_left((i / 4) as u32);
    }
    Ipv4Addr::from(tail)
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = MacParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || MacParseError(text.to_owned());
        let mut bytes = [0_u8; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(error)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() {
            Err(error())
        } else {
            Ok(Self(bytes))
        }
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_bad_text_is_refused() {
        let mac = MacAddr([2, 0x77, 0x65, 0x66, 0x74, 1]);
        assert_eq!(mac.to_string().parse::<MacAddr>().unwrap(), mac);
        for bad in [
            "",
            "02:77",
            "02:77:65:66:74:01:02",
            "02:77:65:66:74:zz",
            "2:77:65:66:74:01",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn derived_addresses_are_local_and_unicast() {
        for ip in ["10.0.0.1", "fd00::1", "fd00:1::"] {
            let ip: IpAddr = ip.parse().unwrap();
            for mac in [MacAddr::of_vtep(ip), MacAddr::of_pod(ip)] {
                assert_eq!(mac.0[0] & 0b11, 0b10, "{mac}");
            }
        }
    }
}
