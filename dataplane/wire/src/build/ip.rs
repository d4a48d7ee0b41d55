//! The network header of a packet under construction.

use alloc::vec::Vec;
use core::net::IpAddr;

use zerocopy::IntoBytes;

use crate::checksum;
use crate::fragment::Fragment;
use crate::ipv4::Ipv4Header;
use crate::ipv6::{Ipv6FragmentHeader, Ipv6Header};
use crate::protocol::Protocol;

#[derive(Clone, Debug)]
pub(super) struct IpPart {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) hops: u8,
    pub(super) class: u8,
    pub(super) flow_label: u32,
    pub(super) identification: u32,
    pub(super) dont_fragment: bool,
    pub(super) fragment: Option<(u16, bool)>,
    /// IPv4 options, padded when built.
    pub(super) options: Vec<u8>,
    /// IPv6 extension headers, without their next-header bytes filled.
    pub(super) extensions: Vec<(Protocol, Vec<u8>)>,
}

impl IpPart {
    /// An ordinary packet between these addresses.
    pub(super) const fn new(source: IpAddr, destination: IpAddr) -> Self {
        Self {
            source,
            destination,
            hops: 64,
            class: 0,
            flow_label: 0,
            identification: 0,
            dont_fragment: true,
            fragment: None,
            options: Vec::new(),
            extensions: Vec::new(),
        }
    }

    /// Zero for ICMPv4, which has no pseudo-header.
    pub(super) fn pseudo_sum(&self, protocol: Protocol, len: usize) -> u32 {
        match (self.source, self.destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) if protocol == Protocol::ICMP => 0,
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                checksum::pseudo_v4(source, destination, protocol, len as u16)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                checksum::pseudo_v6(source, destination, protocol, len as u32)
            }
            _ => unreachable!("Packet::ip refuses two families"),
        }
    }

    /// Puts the network header and its extensions in front of `payload`.
    pub(super) fn wrap(
        &self,
        protocol: Protocol,
        payload: &[u8],
        place: Option<(u16, bool)>,
    ) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = Ipv4Header::new(source, destination, protocol, payload.len() as u16);
                self.wrap_v4(header, payload, place)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Header::new(source, destination, protocol, 0);
                self.wrap_v6(header, payload, place)
            }
            _ => unreachable!("Packet::ip refuses two families"),
        }
    }

    fn wrap_v4(
        &self,
        mut header: Ipv4Header,
        payload: &[u8],
        place: Option<(u16, bool)>,
    ) -> Vec<u8> {
        let options = padded(&self.options, 4, 0);
        let header_len = Ipv4Header::LEN + options.len();
        assert!(
            header_len <= Ipv4Header::MAX_LEN,
            "more than 40 bytes of options"
        );
        header.set_tos(self.class);
        header.set_ttl(self.hops);
        header.set_identification(self.identification as u16);
        header.set_total_len((header_len + payload.len()) as u16);
        header.set_dont_fragment(self.dont_fragment && place.is_none());
        if let Some((offset, more)) = place {
            header.set_fragment(offset, more);
        }
        let mut bytes = header.as_bytes().to_vec();
        bytes[0] = 0x40 | (header_len / 4) as u8;
        bytes.extend(options);
        let checksum = checksum::of(&bytes);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    fn wrap_v6(
        &self,
        mut header: Ipv6Header,
        payload: &[u8],
        place: Option<(u16, bool)>,
    ) -> Vec<u8> {
        let upper = header.next_header();
        let mut chain: Vec<(Protocol, Vec<u8>)> = self
            .extensions
            .iter()
            .map(|(kind, body)| (*kind, extension_bytes(*kind, body)))
            .collect();
        if let Some((offset, more)) = place {
            let fragment = Fragment {
                offset,
                more,
                identification: self.identification,
            };
            let bytes = Ipv6FragmentHeader::new(upper, fragment).as_bytes().to_vec();
            chain.push((Protocol::FRAGMENT, bytes));
        }
        let extensions_len: usize = chain.iter().map(|(_, bytes)| bytes.len()).sum();
        header.set_payload_len((extensions_len + payload.len()) as u16);
        header.set_next_header(chain.first().map_or(upper, |(kind, _)| *kind));
        header.set_hop_limit(self.hops);
        header.set_traffic_class(self.class);
        header.set_flow_label(self.flow_label);
        let mut bytes = header.as_bytes().to_vec();
        for (index, (_, extension)) in chain.iter().enumerate() {
            let next = chain.get(index + 1).map_or(upper, |(kind, _)| *kind);
            bytes.push(next.0);
            bytes.extend_from_slice(&extension[1..]);
        }
        bytes.extend_from_slice(payload);
        bytes
    }
}

/// An extension header with its next-header byte still zero.
fn extension_bytes(kind: Protocol, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from([0, 0]);
    bytes.extend_from_slice(body);
    let mut bytes = padded(&bytes, 8, 8);
    bytes[1] = match kind {
        // RFC 4302 section 2.2: in 4-byte units, minus 2.
        Protocol::AUTHENTICATION => (bytes.len() / 4 - 2) as u8,
        // The fragment header's second byte is reserved.
        Protocol::FRAGMENT => 0,
        _ => (bytes.len() / 8 - 1) as u8,
    };
    bytes
}

/// `bytes` followed by zeros up to a multiple of `unit` and at least `least`.
pub(super) fn padded(bytes: &[u8], unit: usize, least: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(unit).max(least), 0);
    bytes
}
