//! Why a packet was not forwarded: one closed list, counted, traced and shown by name.

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $text:literal;)*) => {
        /// Why a packet was dropped.
        ///
        /// Names are stable: dashboards and tests rely on them. New reasons go at the end of their group.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $text] $variant,)*
        }

        impl DropReason {
            /// Every reason, in order of [`DropReason::index`].
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Number of reasons.
            pub const COUNT: usize = Self::ALL.len();

            /// The stable name: kebab-case, as in `weft status` and captures.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// A sentence for people.
            pub const fn describe(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

drop_reasons! {
    // Before the first header.
    NoTables = "no-tables", "This node's own object has not arrived yet, so nothing is forwarded.";
    PortUnknown = "port-unknown", "The port the packet came from is not in the tables (being attached or detached).";

    // Parse.
    Truncated = "truncated", "The frame ends before a header or a length field says it does.";
    HeadersSplit = "headers-split", "The headers do not fit the first buffer of a multi-buffer packet.";
    VlanTagged = "vlan-tagged", "The frame carries an 802.1Q or 802.1ad tag; pods have no VLANs.";
    EtherType = "ether-type", "The frame is neither IPv4, IPv6 nor ARP.";
    DestinationMac = "destination-mac", "The frame is addressed to somebody else's MAC.";
    Ipv4Malformed = "ipv4-malformed", "The IPv4 header has another version or an impossible length or option.";
    Ipv4Checksum = "ipv4-checksum", "The checksum of the IPv4 header is wrong.";
    Ipv6Malformed = "ipv6-malformed", "The IPv6 header or an extension header is malformed, or too many are chained.";
    SourceRouted = "source-routed", "The packet dictates its path (IPv4 source route or IPv6 routing header), which evades policy.";
    TransportMalformed = "transport-malformed", "The TCP, UDP, SCTP or ICMP header is cut short or its length is impossible.";
    FirstFragmentShort = "first-fragment-short", "A first fragment does not hold the whole header chain (RFC 7112).";
    FragmentMalformed = "fragment-malformed", "A fragment reaches beyond 65,535 bytes or is not a multiple of 8 long.";
    Multicast = "multicast", "The packet is addressed to a group; only neighbour discovery of the gateway is answered.";
    Broadcast = "broadcast", "The packet is addressed to everybody; only ARP for the gateway is answered.";
    Martian = "martian", "An address that may not appear on a link: loopback, unspecified, reserved, or a group as source.";

    // Decapsulation.
    UnderlayUnexpected = "underlay-unexpected", "From the underlay, and neither VXLAN to this node, nor an ICMP error about our VXLAN, nor to a service or about one.";
    VtepUnknown = "vtep-unknown", "VXLAN from an address that is no node of the cluster.";
    OuterFragment = "outer-fragment", "A fragment of the tunnel's to this node; its packets are never fragmented.";
    OuterChecksum = "outer-checksum", "The outer UDP checksum is wrong, or absent on IPv6.";
    VxlanMalformed = "vxlan-malformed", "The VXLAN header has no valid network identifier or no inner frame behind it.";
    VniForeign = "vni-foreign", "The network identifier is not the cluster's.";
    InnerMac = "inner-mac", "The inner frame is not addressed to this node's tunnel endpoint.";
    InnerSource = "inner-source", "The inner source address does not belong to the node that sent the packet.";
    EcnIllegal = "ecn-illegal", "Congestion was marked on a packet whose sender does not speak ECN (RFC 6040).";
    PmtuImplausible = "pmtu-implausible", "An ICMP error about our VXLAN that names an unknown node or an MTU that cannot be or lowers nothing.";

    // Source checks.
    SourceMac = "source-mac", "The frame's source MAC is not the port's.";
    SourceAddress = "source-address", "The source address is not one of the port's.";
    NodeSource = "node-source", "The node's own stack sent a packet with a pod's address as source.";
    OutsideSource = "outside-source", "A client outside the cluster has an address of the cluster or of this link as source.";
    VtepPort = "vtep-port", "UDP from a pod to a node's VXLAN port, which could forge tunnel packets.";

    // The gateway's own traffic.
    ArpUnanswered = "arp-unanswered", "ARP that does not ask for the gateway.";
    NeighbourUnanswered = "neighbour-unanswered", "Neighbour discovery that is malformed or does not ask for the gateway.";
    GatewayTraffic = "gateway-traffic", "A packet to the gateway itself other than a ping.";

    // Connection tracking.
    FlowTableFull = "flow-table-full", "A new connection for which no unanswered or finished one gave way.";

    // Services.
    NoBackend = "no-backend", "A service that has no backend; answered with a reset or with ICMP.";
    NoLocalBackend = "no-local-backend", "A service that answers on nodes with a backend only, and this node has none.";
    SourceRange = "source-range", "The client is in none of the source ranges of the service (loadBalancerSourceRanges).";
    SourcePorts = "source-ports", "No free source port for a connection whose source has to be translated.";
    BackendGone = "backend-gone", "The backend of a running connection is gone from its service; TCP's ends got a reset.";
    SctpFragment = "sctp-fragment", "A fragment of an SCTP packet whose port is translated: its checksum needs the whole packet.";

    // Policy.
    NoPolicy = "no-policy", "A pod of this node the agent has sent no policy for; nothing passes until it does.";
    PolicyEgress = "policy-egress", "The sender's policy does not allow the connection.";
    PolicyIngress = "policy-ingress", "The receiver's policy does not allow the connection.";
    PolicyRevoked = "policy-revoked", "A policy was changed and no longer allows this running connection; TCP's ends got a reset.";

    // Fragments.
    FragmentDuplicate = "fragment-duplicate", "A fragment whose bytes were all seen already.";
    FragmentOverlap = "fragment-overlap", "A fragment of a datagram with overlapping fragments (RFC 5722).";
    FragmentHoldFull = "fragment-hold-full", "A fragment came before its first one while the port already had the most held.";
    FragmentTimeout = "fragment-timeout", "The first fragment did not arrive within a second of this one.";
    FragmentTableFull = "fragment-table-full", "The port has too many unfinished fragmented datagrams.";

    // Routing.
    NoEndpoint = "no-endpoint", "A cluster pod address that no pod has; answered with ICMP.";
    NoService = "no-service", "A cluster service address that no service has; answered with ICMP.";
    LinkLocal = "link-local", "A link-local IPv6 address, which may not be forwarded.";
    HostLoop = "host-loop", "The node's own stack sent a packet that would go back to it.";
    Transit = "transit", "A tunnel packet for an address that is not on this node.";
    PortGone = "port-gone", "The port the packet should leave by is not there.";
    TtlExpired = "ttl-expired", "TTL or hop limit ran out; answered with ICMP.";
    TooBig = "too-big", "Larger than the path and not to be fragmented; answered with ICMP.";

    // Encapsulation and offload.
    NoNeighbour = "no-neighbour", "The underlay's way to the remote node is not known (no route or next-hop MAC).";
    NoHeadroom = "no-headroom", "No room in front of the packet for the tunnel's headers.";
    NoFrame = "no-frame", "No free frame for a packet the pipeline had to build.";
    BurstFull = "burst-full", "One burst would have made more packets than the pipeline keeps room for.";

    // Between workers; set by the worker.
    HandoffFull = "handoff-full", "The queue to the worker that owns the connection was full.";

    // Transmit; set by the worker.
    TxRingFull = "tx-ring-full", "The transmit ring of the port stayed full.";
    TxRefused = "tx-refused", "The port cannot carry the packet: more buffers or metadata than it supports, or it went away.";
    TxOther = "tx-other-worker", "The queue to the worker that owns the transmit ring was full.";
}

impl DropReason {
    /// Position in [`DropReason::ALL`].
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn reasons_have_unique_kebab_names_and_full_sentences() {
        let mut names = HashSet::new();
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert!(
                names.insert(reason.name()),
                "{} is there twice",
                reason.name()
            );
            let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(reason.name().chars().all(kebab), "{}", reason.name());
            assert!(reason.describe().ends_with('.'), "{}", reason.name());
        }
    }
}
