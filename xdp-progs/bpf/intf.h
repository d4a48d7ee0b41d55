// SPDX-License-Identifier: Apache-2.0
//
// What the XDP programs and their loader both see: limits, verdicts, and the layouts of map keys and
// values. The Rust twins are in src/intf.rs; tests/layout.rs compares them with this header's BTF,
// member by member. Addresses are bytes in network order, everything else is host order unless its
// name ends in _be.
#pragma once

#include <linux/types.h>

// Sockets of one node: 1,024 ports, a few of them with many queues. A slot costs 8 bytes.
#define WEFT_SLOTS_MAX 4096
// Interfaces that carry one of our programs.
#define WEFT_PORTS_MAX 1024
// Tunnel endpoint addresses of this node, per family: one per underlay interface.
#define WEFT_LOCAL_ADDRESSES_MAX 64
// Pod prefixes that arrive unencapsulated, per family.
#define WEFT_ROUTED_PREFIXES_MAX 4096
// Addresses that belong to services alone, per family.
#define WEFT_SERVICE_ADDRESSES_MAX 65536
// Address, protocol and port of services for clients outside, per family.
#define WEFT_FRONTENDS_MAX 65536

// Shortcuts: two for each connection that has them. One costs 280 bytes.
#define WEFT_SHORTCUTS_MAX 32768

// Cores that acknowledgements can be steered to.
#define WEFT_CORES_MAX 1024

// How one packet ended: the only key of the verdict counters. Every return of every program has its
// own; the action that belongs to it is fixed (see Verdict::action in src/verdict.rs).
enum weft_verdict {
	// Pod program. It fails closed: what has no socket is dropped.
	WEFT_POD_TAKEN = 0,
	WEFT_POD_UNKNOWN_PORT = 1,
	WEFT_POD_NO_SOCKET = 2,
	// Uplink program, ours.
	WEFT_UPLINK_VXLAN = 3,
	WEFT_UPLINK_TOO_BIG = 4,
	WEFT_UPLINK_ROUTED = 5,
	WEFT_UPLINK_SERVICE = 6,
	WEFT_UPLINK_SERVICE_FRAGMENT = 7,
	WEFT_UPLINK_SERVICE_ERROR = 8,
	// Uplink program, left to the kernel. It fails open: the node stays reachable.
	WEFT_PASS_SHORT = 9,
	WEFT_PASS_VLAN = 10,
	WEFT_PASS_NOT_IP = 11,
	WEFT_PASS_BAD_HEADER = 12,
	WEFT_PASS_NOT_OURS = 13,
	WEFT_PASS_NODE = 14,
	WEFT_PASS_FRAGMENT = 15,
	WEFT_PASS_FOREIGN_VNI = 16,
	WEFT_PASS_OTHER_QUOTE = 17,
	WEFT_PASS_UNKNOWN_PORT = 18,
	WEFT_PASS_NO_SOCKET = 19,
	// Shortcut program at the host end: sent on to another port of the node. It fails closed.
	WEFT_SHORTCUT_TAKEN = 20,
	WEFT_SHORTCUT_NONE = 21,
	// Uplink program: out of the tunnel, into its pod.
	WEFT_UPLINK_SHORTCUT = 22,
	WEFT_VERDICTS = 23,
};

// Value of `ports`, keyed by interface index: its sockets are the XSK slots
// base_slot .. base_slot + queues.
struct weft_port {
	__u32 base_slot;
	__u32 queues;
};
_Static_assert(sizeof(struct weft_port) == 8, "weft_port");

// The one value of `tunnel`. Eight bytes, so that an update is never seen half done.
struct weft_tunnel {
	__u32 vni;
	__be16 vxlan_port_be;
	__u16 pad;
};
_Static_assert(sizeof(struct weft_tunnel) == 8, "weft_tunnel");

struct weft_address4 {
	__u8 bytes[4];
};
_Static_assert(sizeof(struct weft_address4) == 4, "weft_address4");

struct weft_address6 {
	__u8 bytes[16];
};
_Static_assert(sizeof(struct weft_address6) == 16, "weft_address6");

// Where clients outside the cluster reach a service.
struct weft_frontend4 {
	struct weft_address4 address;
	__be16 port_be;
	__u8 protocol;
	__u8 pad;
};
_Static_assert(sizeof(struct weft_frontend4) == 8, "weft_frontend4");

struct weft_frontend6 {
	struct weft_address6 address;
	__be16 port_be;
	__u8 protocol;
	__u8 pad;
};
_Static_assert(sizeof(struct weft_frontend6) == 20, "weft_frontend6");

// Keys of the longest prefix match tries: the length comes first (struct bpf_lpm_trie_key).
struct weft_prefix4 {
	__u32 prefix_len;
	struct weft_address4 address;
};
_Static_assert(sizeof(struct weft_prefix4) == 8, "weft_prefix4");

struct weft_prefix6 {
	__u32 prefix_len;
	struct weft_address6 address;
};
_Static_assert(sizeof(struct weft_prefix6) == 20, "weft_prefix6");

// Key of `shortcuts`: one direction of a TCP or UDP connection, as its packets come in. IPv4 addresses
// are mapped into IPv6 (RFC 4291 section 2.5.5.2).
struct weft_shortcut_key {
	__u8 source[16];
	__u8 destination[16];
	__be16 source_port_be;
	__be16 destination_port_be;
	__u8 protocol;
	__u8 pad[3];
};
_Static_assert(sizeof(struct weft_shortcut_key) == 40, "weft_shortcut_key");

// What is behind a shortcut.
enum weft_shortcut_to {
	// The node's own network namespace, at the far end of `tx_ifindex`.
	WEFT_TO_NODE = 0,
	// Another one there.
	WEFT_TO_POD = 1,
	// Another node, by VXLAN over IPv4; `tx_ifindex` is an uplink.
	WEFT_TO_TUNNEL = 2,
};

// Value of `shortcuts`.
struct weft_shortcut {
	// Holds while it is that of `shortcut_state`.
	__u32 epoch;
	// The one interface its packets come in by.
	__u32 rx_ifindex;
	__u32 tx_ifindex;
	// Where in `shortcut_uses` it is counted.
	__u32 place;
	// Holds while it is that of the place: the place may be another connection's by now.
	__u32 ticket;
	// The largest IP packet the other interface takes.
	__u32 mtu;
	// A frame that has not the pod's and the gateway's address is not for the shortcut. In a tunnel they
	// are those of its ends.
	__u8 pod_mac[6];
	__u8 gateway_mac[6];
	// It goes on to this address.
	__u8 peer_mac[6];
	// enum weft_shortcut_to.
	__u8 to;
	// The packets go on with the addresses and ports below, which are others.
	__u8 translated;
	__u8 source[16];
	__u8 destination[16];
	__be16 source_port_be;
	__be16 destination_port_be;
	// It goes on from this address.
	__u8 sender_mac[6];
	// Of the tunnel packets its packets come in, or go on in; all 0 without a tunnel.
	__u8 tunnel_source_mac[6];
	__u8 tunnel_destination_mac[6];
	__be16 tunnel_port_be;
	struct weft_address4 tunnel_source;
	struct weft_address4 tunnel_destination;
	__u32 vni;
	__be16 vxlan_port_be;
	__u16 pad;
};
_Static_assert(sizeof(struct weft_shortcut) == 116, "weft_shortcut");

// Value of `shortcut_uses`. The program counts, the dataplane says who may.
struct weft_shortcut_use {
	__u64 packets;
	// Of IP packets.
	__u64 bytes;
	// CLOCK_MONOTONIC of the last packet.
	__u64 last_ns;
	// The highest TCP sequence number behind a segment.
	__u32 end_sequence;
	// Of the shortcut that is counted here; 0: none holds.
	__u32 ticket;
};
_Static_assert(sizeof(struct weft_shortcut_use) == 32, "weft_shortcut_use");

// The one value of `shortcut_state`, written by the dataplane alone. Times are CLOCK_MONOTONIC.
struct weft_shortcut_state {
	// Until when shortcuts hold without a word of the dataplane.
	__u64 alive_until_ns;
	// Until when packets that are on their way by shortcuts of former epochs still arrive.
	__u64 former_until_ns;
	// 0: none holds.
	__u32 epoch;
	// The first of the former ones; the last is the one before `epoch`.
	__u32 former;
};
_Static_assert(sizeof(struct weft_shortcut_state) == 24, "weft_shortcut_state");
