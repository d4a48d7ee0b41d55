// SPDX-License-Identifier: Apache-2.0
//
// What the programs that know shortcuts share: the maps, which packets may take one, and what becomes of
// them.
#pragma once

#include <linux/bpf.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "intf.h"
#include "parse.h"

// Written by the dataplane.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, WEFT_SHORTCUTS_MAX);
	__type(key, struct weft_shortcut_key);
	__type(value, struct weft_shortcut);
} shortcuts SEC(".maps");

// What went by each shortcut, by its place: the dataplane reads it through a mapping, and takes a single
// shortcut back there.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, WEFT_SHORTCUTS_MAX);
	__type(key, __u32);
	__type(value, struct weft_shortcut_use);
} shortcut_uses SEC(".maps");

// Which shortcuts hold: one word of it takes all of them back at once.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct weft_shortcut_state);
} shortcut_state SEC(".maps");

// A packet, as far as shortcuts are concerned.
struct data_packet {
	struct weft_shortcut_key key;
	struct ethhdr *ethernet;
	// One of them.
	struct iphdr *ip4;
	struct ipv6hdr *ip6;
	struct transport_ports *ports;
	__sum16 *checksum;
	// Of the IP packet.
	__u32 bytes;
	// Of its IP header.
	__u32 ip_header_bytes;
	// Of what each piece of an uncut packet will have in front of its payload.
	__u32 header_bytes;
	// Of a TCP segment: the sequence number behind it.
	__u32 end_sequence;
	__be16 ethertype_be;
	// TOS or traffic class.
	__u8 class;
};

// Data or acknowledgements only: what changes a connection's state is for the dataplane to see.
static __always_inline int tcp_data(struct cursor *cursor, struct data_packet *packet)
{
	struct tcphdr *tcp = take(cursor, sizeof(*tcp));
	__u32 segment_bytes = packet->bytes - packet->ip_header_bytes;

	if (!tcp || !tcp->ack || tcp->syn || tcp->fin || tcp->rst || tcp->urg ||
	    segment_bytes < tcp->doff * 4)
		return 0;
	packet->ports = (struct transport_ports *)tcp;
	packet->checksum = &tcp->check;
	packet->header_bytes += tcp->doff * 4;
	packet->end_sequence = bpf_ntohl(tcp->seq) + segment_bytes - tcp->doff * 4;
	return 1;
}

static __always_inline int udp_data(struct cursor *cursor, struct data_packet *packet)
{
	struct udphdr *udp = take(cursor, sizeof(*udp));

	if (!udp || packet->bytes - packet->ip_header_bytes < sizeof(*udp))
		return 0;
	packet->ports = (struct transport_ports *)udp;
	packet->checksum = &udp->check;
	packet->header_bytes += sizeof(*udp);
	return 1;
}

static __always_inline int transport_data(struct cursor *cursor, struct data_packet *packet,
					  __u8 protocol)
{
	int is_data = 0;

	packet->key.protocol = protocol;
	if (protocol == IPPROTO_TCP)
		is_data = tcp_data(cursor, packet);
	else if (protocol == IPPROTO_UDP)
		is_data = udp_data(cursor, packet);
	if (is_data) {
		packet->key.source_port_be = packet->ports->source_be;
		packet->key.destination_port_be = packet->ports->destination_be;
	}
	return is_data;
}

// RFC 4291 section 2.5.5.2: an IPv4 address among those of IPv6.
static __always_inline void map_address(__u8 *mapped, __be32 address)
{
	mapped[10] = 0xff;
	mapped[11] = 0xff;
	__builtin_memcpy(mapped + 12, &address, sizeof(address));
}

// `uncut` are the bytes of a packet that is yet to be cut, 0 of others. TCP makes it two segments at least
// (tcp_tso_autosize, net/ipv4/tcp_output.c), which may be more than the header can say: it says 0 then, and
// the kernel cuts it after it passed here.
static __always_inline int data4(struct cursor *cursor, struct data_packet *packet, __u32 uncut)
{
	struct iphdr *ip = take(cursor, sizeof(*ip));

	if (!ip || ip->version != 4 || ip->ihl != 5 || ip->ttl <= 1 ||
	    ip->frag_off & bpf_htons(IPV4_FRAGMENT_MASK))
		return 0;
	packet->bytes = uncut ? uncut : bpf_ntohs(ip->tot_len);
	packet->ip_header_bytes = sizeof(*ip);
	packet->header_bytes = sizeof(*ip);
	if (packet->bytes < sizeof(*ip))
		return 0;
	packet->ip4 = ip;
	packet->class = ip->tos;
	map_address(packet->key.source, ip->saddr);
	map_address(packet->key.destination, ip->daddr);
	return transport_data(cursor, packet, ip->protocol);
}

// RFC 2675: the one option of a packet whose length its header cannot say.
struct jumbo_header {
	__u8 next;
	__u8 len;
	__u8 option;
	__u8 option_len;
	__be32 bytes_be;
};
#define OPTION_JUMBO 0xc2

// As IPv4; what is too long has an option that goes when it is cut.
static __always_inline int data6(struct cursor *cursor, struct data_packet *packet, __u32 uncut)
{
	struct ipv6hdr *ip = take(cursor, sizeof(*ip));
	const struct jumbo_header *jumbo;
	__u8 protocol;

	if (!ip || ip->version != 6 || ip->hop_limit <= 1)
		return 0;
	protocol = ip->nexthdr;
	packet->bytes = uncut ? uncut : bpf_ntohs(ip->payload_len) + sizeof(*ip);
	packet->ip_header_bytes = sizeof(*ip);
	packet->header_bytes = sizeof(*ip);
	if (uncut && !ip->payload_len && protocol == IPPROTO_HOPOPTS) {
		jumbo = take(cursor, sizeof(*jumbo));
		if (!jumbo || jumbo->len || jumbo->option != OPTION_JUMBO || jumbo->option_len != 4)
			return 0;
		protocol = jumbo->next;
		packet->ip_header_bytes += sizeof(*jumbo);
	}
	packet->ip6 = ip;
	packet->class = ip->priority << 4 | ip->flow_lbl[0] >> 4;
	__builtin_memcpy(packet->key.source, &ip->saddr, sizeof(ip->saddr));
	__builtin_memcpy(packet->key.destination, &ip->daddr, sizeof(ip->daddr));
	return transport_data(cursor, packet, protocol);
}

// A frame with nothing between Ethernet and IP.
static __always_inline int frame_data(struct cursor *cursor, struct data_packet *packet, __u32 uncut)
{
	packet->ethernet = take(cursor, sizeof(*packet->ethernet));
	if (!packet->ethernet)
		return 0;
	packet->ethertype_be = packet->ethernet->h_proto;
	if (packet->ethertype_be == bpf_htons(ETH_P_IP))
		return data4(cursor, packet, uncut);
	if (packet->ethertype_be == bpf_htons(ETH_P_IPV6))
		return data6(cursor, packet, uncut);
	return 0;
}

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	int same = 1;

	for (int i = 0; i < ETH_ALEN; i++)
		same &= a[i] == b[i];
	return same;
}

// Whether a frame with these addresses is for the shortcut.
static __always_inline int fits(const struct weft_shortcut *shortcut, const struct ethhdr *ethernet)
{
	return same_mac(ethernet->h_source, shortcut->pod_mac) &&
	       same_mac(ethernet->h_dest, shortcut->gateway_mac);
}

// A shortcut holds while the dataplane says so: it is of the tables in force, and somebody lives who
// would take it back.
static __always_inline int holds(const struct weft_shortcut *shortcut)
{
	__u32 only = 0;
	const struct weft_shortcut_state *state = bpf_map_lookup_elem(&shortcut_state, &only);

	return state && shortcut->epoch == state->epoch &&
	       bpf_ktime_get_coarse_ns() < state->alive_until_ns;
}

static __always_inline struct weft_shortcut_use *counted(const struct weft_shortcut *shortcut)
{
	struct weft_shortcut_use *use = bpf_map_lookup_elem(&shortcut_uses, &shortcut->place);

	return use && use->ticket == shortcut->ticket ? use : NULL;
}

static __always_inline void note_use(struct weft_shortcut_use *use, const struct data_packet *packet)
{
	__sync_fetch_and_add(&use->packets, 1);
	__sync_fetch_and_add(&use->bytes, packet->bytes);
	use->last_ns = bpf_ktime_get_coarse_ns();
	if ((__s32)(packet->end_sequence - use->end_sequence) > 0)
		use->end_sequence = packet->end_sequence;
}

// A checksum with `change` added (RFC 1624).
static __always_inline __u16 changed(__u16 checksum, __u64 change)
{
	__u64 sum = (__u16)~checksum + change;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

// One hop. The TTL is the upper half of its checksum's word.
static __always_inline void count_hop(struct data_packet *packet)
{
	if (packet->ip6) {
		packet->ip6->hop_limit--;
	} else if (packet->ip4) {
		packet->ip4->ttl--;
		packet->ip4->check = changed(packet->ip4->check, bpf_htons(0xfeff));
	}
}

// What changed in the sum that the transport's checksum covers.
struct translation {
	__s64 addresses;
	__s64 ports;
};

// The addresses and ports the packet goes on with; its transport's checksum is still that of the old ones.
static __always_inline struct translation replace_ends(struct data_packet *packet,
						       const struct weft_shortcut *shortcut)
{
	const struct transport_ports to = {
		.source_be = shortcut->source_port_be,
		.destination_be = shortcut->destination_port_be,
	};
	// Mapped addresses begin alike, which does not change the sum.
	const struct translation translation = {
		.addresses = bpf_csum_diff((__be32 *)packet->key.source, 32,
					   (__be32 *)shortcut->source, 32, 0),
		.ports = bpf_csum_diff((__be32 *)&packet->key.source_port_be, sizeof(to),
				       (__be32 *)&to, sizeof(to), 0),
	};

	packet->ports->source_be = to.source_be;
	packet->ports->destination_be = to.destination_be;
	if (packet->ip4) {
		__builtin_memcpy(&packet->ip4->saddr, shortcut->source + 12, 4);
		__builtin_memcpy(&packet->ip4->daddr, shortcut->destination + 12, 4);
		packet->ip4->check = changed(packet->ip4->check, (__u32)translation.addresses);
	} else if (packet->ip6) {
		__builtin_memcpy(&packet->ip6->saddr, shortcut->source, 16);
		__builtin_memcpy(&packet->ip6->daddr, shortcut->destination, 16);
	}
	return translation;
}

// A hop further: the frame the other end takes.
static __always_inline void forward(struct data_packet *packet, const struct weft_shortcut *shortcut)
{
	count_hop(packet);
	__builtin_memcpy(packet->ethernet->h_source, shortcut->sender_mac, ETH_ALEN);
	__builtin_memcpy(packet->ethernet->h_dest, shortcut->peer_mac, ETH_ALEN);
}

// What is in front of a packet in the tunnel, over IPv4.
struct front4 {
	struct ethhdr ethernet;
	struct iphdr ip;
	struct udphdr udp;
	struct vxlan_header tunnel;
} __attribute__((packed));
