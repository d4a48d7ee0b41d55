//! Packets built from their description, as the stack behind a port would send them.

use std::net::IpAddr;

use weft_api::dataplane::PortKind;
use weft_api::envelope::{ApiError, ErrorKind};
use weft_api::trace::{PAYLOAD_BYTES_MAX, PacketDescription};
use weft_engine::{FrontendKey, MacAddr, NodeTable, PortEntry, PortId, Remote};
use weft_wire::{ChecksumField, Protocol, TcpFlags, build};

use super::{Place, misuse};
use crate::ports::AttachedPort;

/// Source port of a tunnel packet: one of the dynamic ports (RFC 7348 section 5).
const TUNNEL_SOURCE_PORT: u16 = 50_000;

/// Who brings a described packet of a client outside the cluster: one of the addresses for documentation (RFC 7042
/// section 2.1.2).
const OUTSIDE_MAC: MacAddr = MacAddr([0, 0, 0x5e, 0, 0x53, 1]);

/// Identifier of a described ping.
const PING_ID: u16 = 1;

impl Place<'_> {
    /// The frame that is described, as it comes from `port`.
    pub(super) fn build(
        &self,
        port: &AttachedPort,
        description: &PacketDescription,
    ) -> Result<Vec<u8>, ApiError> {
        let gone = || misuse("this node's own object has not arrived yet");
        let node = self.tables.node().ok_or_else(gone)?;
        let entry = self.tables.port(PortId(port.record.id)).ok_or_else(gone)?;
        let (source, destination) = self.ends(port, node, description)?;
        let packet = build::Packet::ip(source, destination);
        if port.spec.kind != PortKind::Uplink {
            if description.from_node.is_some() {
                return Err(misuse(format!("{} is no uplink", port.spec.name)));
            }
            let packet = upper(packet.macs(entry.mac, node.gateway_mac), description)?;
            let leaves_to_device =
                [Protocol::TCP, Protocol::UDP].contains(&Protocol(description.protocol));
            // As TCP's segmentation is; of ICMP and SCTP the stack fills the checksum itself.
            return Ok(if leaves_to_device {
                packet.checksum(ChecksumField::Partial).build()
            } else {
                packet.build()
            });
        }
        let to_service = self.tables.frontend(&FrontendKey {
            address: destination,
            protocol: description.protocol,
            port: description.destination_port,
        });
        if description.from_node.is_none() && to_service.is_some() {
            return Ok(upper(packet.macs(OUTSIDE_MAC, entry.mac), description)?.build());
        }
        let inner = upper(packet, description)?;
        self.tunnelled(inner, entry, node, description)
    }

    fn tunnelled(
        &self,
        inner: build::Packet,
        uplink: &PortEntry,
        node: &NodeTable,
        description: &PacketDescription,
    ) -> Result<Vec<u8>, ApiError> {
        let asked = description.from_node.as_deref();
        let name = asked.ok_or_else(|| misuse("from which node does it come? Name it"))?;
        let remote: &Remote = self.compiler.remote(name).ok_or_else(|| {
            ApiError::new(
                ErrorKind::NotFound,
                format!("no other node is called {name}"),
            )
        })?;
        let path = remote
            .path
            .ok_or_else(|| misuse(format!("the underlay knows no way to {name}")))?;
        if path.source.is_ipv4() != remote.vtep.is_ipv4() {
            return Err(misuse(format!(
                "the way to {name} is of another address family"
            )));
        }
        let own = node
            .vtep_mac(remote.vtep)
            .ok_or_else(|| misuse(format!("no tunnel of {name}'s address family")))?;
        let inner = inner.macs(remote.vtep_mac, own).build();
        let outer = build::Packet::ip(remote.vtep, path.source)
            .macs(path.next_hop_mac, uplink.mac)
            .vxlan(TUNNEL_SOURCE_PORT, node.vni, &inner)
            .udp(TUNNEL_SOURCE_PORT, node.vxlan_port);
        Ok(outer.build())
    }

    /// Addresses of both ends, of one family.
    fn ends(
        &self,
        port: &AttachedPort,
        node: &NodeTable,
        description: &PacketDescription,
    ) -> Result<(IpAddr, IpAddr), ApiError> {
        let destinations = self.view.addresses(&description.destination)?;
        let (name, sources) = match &description.source {
            Some(source) => (source.as_str(), self.view.addresses(source)?),
            None => (port.spec.name.0.as_str(), own_addresses(port, node)),
        };
        let mut pairs = sources.iter().flat_map(|source| {
            let same = |it: &&IpAddr| it.is_ipv4() == source.is_ipv4();
            destinations.iter().filter(same).map(|it| (*source, *it))
        });
        pairs.next().ok_or_else(|| {
            misuse(format!(
                "{name} and {} have no addresses of the same family",
                description.destination
            ))
        })
    }
}

fn own_addresses(port: &AttachedPort, node: &NodeTable) -> Vec<IpAddr> {
    if port.spec.kind == PortKind::Node {
        let v4 = node.node_port4.map(IpAddr::V4);
        return v4
            .into_iter()
            .chain(node.node_port6.map(IpAddr::V6))
            .collect();
    }
    port.spec.addresses.clone()
}

fn upper(
    packet: build::Packet,
    description: &PacketDescription,
) -> Result<build::Packet, ApiError> {
    if description.payload_bytes > PAYLOAD_BYTES_MAX {
        return Err(misuse(format!(
            "{} bytes of payload where a packet takes {PAYLOAD_BYTES_MAX} at most",
            description.payload_bytes
        )));
    }
    let (from, to) = (description.source_port, description.destination_port);
    let packet = match Protocol(description.protocol) {
        Protocol::TCP => packet.tcp(from, to).flags(TcpFlags(description.tcp_flags)),
        Protocol::UDP => packet.udp(from, to),
        // A tag of nothing opens an association (RFC 9260 section 8.5.1); its one chunk is INIT.
        Protocol::SCTP if description.payload_bytes > 0 => {
            return Err(misuse(
                "a described SCTP packet is an INIT, whose length is fixed",
            ));
        }
        Protocol::SCTP => return Ok(packet.sctp(from, to, 0).payload(&INIT)),
        Protocol::ICMP | Protocol::ICMPV6 => packet.echo_request(PING_ID, 1),
        other => {
            return Err(misuse(format!(
                "packets of protocol {} cannot be described; give the frame's bytes",
                other.0
            )));
        }
    };
    Ok(packet.payload_len(description.payload_bytes as usize))
}

/// An INIT chunk (RFC 9260 section 3.3.2): initiate tag 1, window 65,535, one stream each way.
const INIT: [u8; 20] = [
    1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1,
];
