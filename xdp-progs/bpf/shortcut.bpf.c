// SPDX-License-Identifier: Apache-2.0
//
// Shortcuts: data of a pod's connections that the dataplane let through goes from its interface straight
// into another one of the node, or into the tunnel to another node, whole and uncopied, until the dataplane
// takes the shortcut back. What comes out of the tunnel is uplink.bpf.c's.
// What opens or ends a connection, fragments, options and last hops go the usual way.
//
// It takes two programs, because generic XDP copies a packet before a program may look at it, and comes
// before every other hook of the host end. `out` looks at what a pod sends inside the pod and sends what
// has a shortcut to the same interface again: the kernel marks it redirected for that, and generic XDP
// leaves the redirected alone (netif_receive_generic_xdp, net/core/dev.c). So it comes to `in` at the
// host end, which asks again, since a pod may do the same on its own, and sends it on.
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "intf.h"
#include "maps.h"
#include "parse.h"
#include "shortcut.h"

// `tc_index` of a packet that `out` sends to the same interface again.
#define AGAIN 0x7766

// What the length of an IPv4 header can say. Longer packets, yet to be cut, have none.
#define IPV4_BYTES_MAX 0xffff
#define TUNNELLED_BYTES_MAX (IPV4_BYTES_MAX - sizeof(struct front4))

static __always_inline int data_packet(struct __sk_buff *skb, struct data_packet *packet)
{
	struct cursor cursor = {
		.pos = (void *)(long)skb->data,
		.end = (void *)(long)skb->data_end,
	};
	__u32 uncut = skb->gso_size ? skb->len - ETH_HLEN : 0;

	// A tag may be beside the packet.
	return !skb->vlan_present && frame_data(&cursor, packet, uncut);
}

// What the interface has to take: of a packet that is yet to be cut, the largest piece.
static __always_inline __u32 size(const struct __sk_buff *skb, const struct data_packet *packet)
{
	return skb->gso_size ? packet->header_bytes + skb->gso_size : packet->bytes;
}

// The shortcut for a packet, whether it holds or not.
static __always_inline const struct weft_shortcut *find(struct __sk_buff *skb,
							struct data_packet *packet)
{
	const struct weft_shortcut *shortcut;

	if (!data_packet(skb, packet))
		return NULL;
	shortcut = bpf_map_lookup_elem(&shortcuts, &packet->key);
	if (!shortcut || size(skb, packet) > shortcut->mtu || !fits(shortcut, packet->ethernet))
		return NULL;
	if (shortcut->to == WEFT_TO_TUNNEL && packet->bytes > TUNNELLED_BYTES_MAX)
		return NULL;
	return shortcut;
}

// Whether it held when the packet passed `out`, a moment ago.
static __always_inline int held(const struct weft_shortcut *shortcut)
{
	__u32 only = 0;
	const struct weft_shortcut_state *state = bpf_map_lookup_elem(&shortcut_state, &only);

	// Without an epoch in force all later ones than the first are former ones.
	return state && shortcut->epoch - state->former < state->epoch - state->former &&
	       bpf_ktime_get_coarse_ns() < state->former_until_ns;
}

// Invalidates the packet's pointers.
static __always_inline void translate(struct __sk_buff *skb, struct data_packet *packet,
				      const struct weft_shortcut *shortcut)
{
	__u32 checksum_at = packet->key.protocol == IPPROTO_TCP ? offsetof(struct tcphdr, check)
								: offsetof(struct udphdr, check);
	// A datagram without a checksum stays so.
	__u64 flags = packet->key.protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	const struct translation translation = replace_ends(packet, shortcut);

	checksum_at += ETH_HLEN + packet->ip_header_bytes;
	// The kernel knows whether the field holds a checksum or the pseudo-header's sum alone.
	bpf_l4_csum_replace(skb, checksum_at, 0, translation.addresses, flags | BPF_F_PSEUDO_HDR);
	bpf_l4_csum_replace(skb, checksum_at, 0, translation.ports, flags);
}

#define IPV4_DONT_FRAGMENT 0x4000
#define TUNNEL_TTL 64
#define ENCAPSULATION                                                                              \
	(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |   \
	 BPF_F_ADJ_ROOM_ENCAP_L2_ETH | BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN))

// To another node, by VXLAN over IPv4. What is yet to be cut is cut behind this, each piece with headers and
// lengths of its own (skb_udp_tunnel_segment, net/ipv4/udp_offload.c).
static __always_inline int into_tunnel(struct __sk_buff *skb, const struct data_packet *packet,
				       const struct weft_shortcut *shortcut)
{
	__u32 udp_bytes = sizeof(struct udphdr) + sizeof(struct vxlan_header) + ETH_HLEN +
			  packet->bytes;
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tos = packet->class,
		.tot_len = bpf_htons(udp_bytes + sizeof(ip)),
		.frag_off = bpf_htons(IPV4_DONT_FRAGMENT),
		.ttl = TUNNEL_TTL,
		.protocol = IPPROTO_UDP,
	};
	struct {
		struct front4 outer;
		struct ethhdr inner;
	} __attribute__((packed)) front = {
		.outer.ethernet.h_proto = bpf_htons(ETH_P_IP),
		.outer.udp = {
			.source = shortcut->tunnel_port_be,
			.dest = shortcut->vxlan_port_be,
			.len = bpf_htons(udp_bytes),
		},
		.outer.tunnel = {
			.flags_be = bpf_htonl(VXLAN_FLAG_VNI),
			.vni_be = bpf_htonl(shortcut->vni << VXLAN_VNI_SHIFT),
		},
		.inner.h_proto = packet->ethertype_be,
	};

	__builtin_memcpy(&ip.saddr, &shortcut->tunnel_source, sizeof(ip.saddr));
	__builtin_memcpy(&ip.daddr, &shortcut->tunnel_destination, sizeof(ip.daddr));
	ip.check = changed(0xffff, (__u32)bpf_csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0));
	front.outer.ip = ip;
	__builtin_memcpy(front.outer.ethernet.h_source, shortcut->tunnel_source_mac, ETH_ALEN);
	__builtin_memcpy(front.outer.ethernet.h_dest, shortcut->tunnel_destination_mac, ETH_ALEN);
	__builtin_memcpy(front.inner.h_source, shortcut->sender_mac, ETH_ALEN);
	__builtin_memcpy(front.inner.h_dest, shortcut->peer_mac, ETH_ALEN);
	if (bpf_skb_adjust_room(skb, sizeof(front.outer), BPF_ADJ_ROOM_MAC, ENCAPSULATION) ||
	    bpf_skb_store_bytes(skb, 0, &front, sizeof(front), BPF_F_INVALIDATE_HASH)) {
		count(WEFT_SHORTCUT_NONE);
		return TC_ACT_SHOT;
	}
	count(WEFT_SHORTCUT_TAKEN);
	return bpf_redirect(shortcut->tx_ifindex, 0);
}

// Longer than an IPv4 header can say: for shortcuts alone.
static __always_inline int is_large(const struct __sk_buff *skb)
{
	return skb->gso_size && skb->protocol == bpf_htons(ETH_P_IP) &&
	       skb->len > ETH_HLEN + IPV4_BYTES_MAX;
}

// A large packet without a shortcut has to be cut before it leaves the pod: generic XDP would drop it. The
// kernel cuts what the interface does not (validate_xmit_skb, net/core/dev.c), and a port's does not cut what
// is in a tunnel (PORT_OFFLOADS, control/ethtool). So the packet gets an IPv4 header more, to nowhere; each
// piece has it in front, and weft_pod takes it off.
static __always_inline int have_cut(struct __sk_buff *skb)
{
	const struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.ttl = 1,
		.protocol = IPPROTO_IPIP,
		.daddr = NOWHERE,
	};

	if (bpf_skb_adjust_room(skb, sizeof(ip), BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0))
		return TC_ACT_SHOT;
	return TC_ACT_UNSPEC;
}

// Where the kernel is to work on what a pod sends: on the core that sends it, but for acknowledgements. The
// receiver's reading makes them, and what they let go would leave the sender from the receiver's core, which
// then does everything. So they go to the core that sent what they acknowledge, by receive packet steering at
// the host end (Documentation/networking/scaling.rst), which chooses a core by the packet's hash.

// By a shortcut's place: the core its data was sent from, and 1; 0: not known.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WEFT_SHORTCUTS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} sender_cores SEC(".maps");

// By core: a hash that chooses it; 0: none does. Written by the keeper.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WEFT_CORES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} core_hashes SEC(".maps");

// The place of the last acknowledgement that came on this core, and 1. What the pod sends next by the other way
// of its connection is the acknowledgement's doing, wherever the sender runs.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} acknowledged SEC(".maps");

// No core is chosen by it: the packet stays on its own.
#define HASH_OF_NO_CORE 0

static __always_inline int is_acknowledgement(const struct data_packet *packet)
{
	return packet->key.protocol == IPPROTO_TCP && packet->bytes <= packet->header_bytes;
}

static __always_inline void note_acknowledgement(const struct weft_shortcut *shortcut)
{
	__u32 only = 0;
	__u32 *last = bpf_map_lookup_elem(&acknowledged, &only);

	if (last)
		*last = shortcut->place + 1;
}

// Both ways of a connection have places beside each other (`place`, daemon/src/shortcut_ring.rs).
static __always_inline __u32 other_way(const struct weft_shortcut *shortcut)
{
	return shortcut->place ^ 1;
}

static __always_inline void note_sender(const struct weft_shortcut *shortcut)
{
	__u32 only = 0, core = bpf_get_smp_processor_id();
	__u32 *last = bpf_map_lookup_elem(&acknowledged, &only);
	__u32 *sender;

	if (!last || *last == other_way(shortcut) + 1)
		return;
	sender = bpf_map_lookup_elem(&sender_cores, &shortcut->place);
	if (sender && *sender != core + 1)
		*sender = core + 1;
}

static __always_inline __u32 hash_of_sender(const struct weft_shortcut *shortcut)
{
	__u32 place = other_way(shortcut), core;
	__u32 *sender = bpf_map_lookup_elem(&sender_cores, &place);
	__u32 *hash;

	if (!sender || !*sender || *sender == bpf_get_smp_processor_id() + 1)
		return HASH_OF_NO_CORE;
	core = *sender - 1;
	hash = bpf_map_lookup_elem(&core_hashes, &core);
	return hash ? *hash : HASH_OF_NO_CORE;
}

static __always_inline void steer(struct __sk_buff *skb, const struct data_packet *packet,
				  const struct weft_shortcut *shortcut)
{
	if (is_acknowledgement(packet))
		bpf_set_hash(skb, hash_of_sender(shortcut));
	else if (packet->key.protocol == IPPROTO_TCP)
		note_sender(shortcut);
}

SEC("tc")
int weft_shortcut_out(struct __sk_buff *skb)
{
	struct data_packet packet = {};
	const struct weft_shortcut *shortcut;

	if (skb->tc_index == AGAIN) {
		skb->tc_index = 0;
		return TC_ACT_UNSPEC;
	}
	bpf_set_hash(skb, HASH_OF_NO_CORE);
	shortcut = find(skb, &packet);
	if (!shortcut || !holds(shortcut) || !counted(shortcut))
		return is_large(skb) ? have_cut(skb) : TC_ACT_UNSPEC;
	steer(skb, &packet, shortcut);
	skb->tc_index = AGAIN;
	return bpf_redirect(skb->ifindex, 0);
}

SEC("tc")
int weft_shortcut_in(struct __sk_buff *skb)
{
	struct data_packet packet = {};
	const struct weft_shortcut *shortcut = find(skb, &packet);
	struct weft_shortcut_use *use;

	if (!shortcut || shortcut->rx_ifindex != skb->ifindex ||
	    (!holds(shortcut) && !held(shortcut))) {
		count(WEFT_SHORTCUT_NONE);
		return TC_ACT_SHOT;
	}
	use = counted(shortcut);
	if (use)
		note_use(use, &packet);
	if (is_acknowledgement(&packet))
		note_acknowledgement(shortcut);
	bpf_set_hash_invalid(skb);
	forward(&packet, shortcut);
	if (shortcut->translated)
		translate(skb, &packet, shortcut);
	if (shortcut->to == WEFT_TO_TUNNEL)
		return into_tunnel(skb, &packet, shortcut);
	count(WEFT_SHORTCUT_TAKEN);
	if (shortcut->to == WEFT_TO_NODE)
		return bpf_redirect(shortcut->tx_ifindex, 0);
	// It was somebody else's at this interface: the gateway's address is nobody's.
	bpf_skb_change_type(skb, PACKET_HOST);
	return bpf_redirect_peer(shortcut->tx_ifindex, 0);
}

char LICENSE[] SEC("license") = "Apache-2.0";
