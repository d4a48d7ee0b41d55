// SPDX-License-Identifier: Apache-2.0
//
// Shortcuts: data of TCP connections between two pods of this node that the dataplane let through. It
// goes to the other pod's interface right here, whole, until the dataplane takes the shortcut back. What
// opens or ends a connection, fragments, options and last hops go the usual way.
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
	// Of the IP packet.
	__u32 bytes;
	// Of the segment: the sequence number behind it.
	__u32 end_sequence;
};

// Data or acknowledgements only: what changes a connection's state is for the dataplane to see.
static __always_inline int tcp_data(struct cursor *cursor, struct data_packet *packet,
				    __u32 segment_bytes)
{
	const struct tcphdr *tcp = take(cursor, sizeof(*tcp));

	if (!tcp || !tcp->ack || tcp->syn || tcp->fin || tcp->rst || tcp->urg ||
	    segment_bytes < tcp->doff * 4)
		return 0;
	packet->key.source_port_be = tcp->source;
	packet->key.destination_port_be = tcp->dest;
	packet->end_sequence = bpf_ntohl(tcp->seq) + segment_bytes - tcp->doff * 4;
	return 1;
}

// RFC 4291 section 2.5.5.2: an IPv4 address among those of IPv6.
static __always_inline void map_address(__u8 *mapped, __be32 address)
{
	mapped[10] = 0xff;
	mapped[11] = 0xff;
	__builtin_memcpy(mapped + 12, &address, sizeof(address));
}

static __always_inline int data4(struct cursor *cursor, struct data_packet *packet)
{
	struct iphdr *ip = take(cursor, sizeof(*ip));

	if (!ip || ip->version != 4 || ip->ihl != 5 || ip->ttl <= 1 || ip->protocol != IPPROTO_TCP ||
	    ip->frag_off & bpf_htons(IPV4_FRAGMENT_MASK) || bpf_ntohs(ip->tot_len) < sizeof(*ip))
		return 0;
	packet->ip4 = ip;
	packet->bytes = bpf_ntohs(ip->tot_len);
	map_address(packet->key.source, ip->saddr);
	map_address(packet->key.destination, ip->daddr);
	return tcp_data(cursor, packet, packet->bytes - sizeof(*ip));
}

static __always_inline int data6(struct cursor *cursor, struct data_packet *packet)
{
	struct ipv6hdr *ip = take(cursor, sizeof(*ip));

	if (!ip || ip->version != 6 || ip->hop_limit <= 1 || ip->nexthdr != IPPROTO_TCP)
		return 0;
	packet->ip6 = ip;
	packet->bytes = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	__builtin_memcpy(packet->key.source, &ip->saddr, sizeof(ip->saddr));
	__builtin_memcpy(packet->key.destination, &ip->daddr, sizeof(ip->daddr));
	return tcp_data(cursor, packet, packet->bytes - sizeof(*ip));
}

static __always_inline int data_packet(struct xdp_md *ctx, struct data_packet *packet)
{
	struct cursor cursor = {
		.pos = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};

	packet->ethernet = take(&cursor, sizeof(*packet->ethernet));
	if (!packet->ethernet)
		return 0;
	packet->key.rx_ifindex = ctx->ingress_ifindex;
	if (packet->ethernet->h_proto == bpf_htons(ETH_P_IP))
		return data4(&cursor, packet);
	if (packet->ethernet->h_proto == bpf_htons(ETH_P_IPV6))
		return data6(&cursor, packet);
	return 0;
}

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	int same = 1;

	for (int i = 0; i < ETH_ALEN; i++)
		same &= a[i] == b[i];
	return same;
}

// A shortcut holds while the dataplane says so: it is of the tables in force, and somebody lives who
// would take it back.
static __always_inline int holds(const struct weft_shortcut *shortcut)
{
	__u32 only = 0;
	const struct weft_shortcut_state *state = bpf_map_lookup_elem(&shortcut_state, &only);

	return state && shortcut->epoch == state->epoch && bpf_ktime_get_ns() < state->alive_until_ns;
}

static __always_inline void note_use(struct weft_shortcut_use *use, const struct data_packet *packet)
{
	__sync_fetch_and_add(&use->packets, 1);
	__sync_fetch_and_add(&use->bytes, packet->bytes);
	use->last_ns = bpf_ktime_get_ns();
	if ((__s32)(packet->end_sequence - use->end_sequence) > 0)
		use->end_sequence = packet->end_sequence;
}

// One hop: RFC 1624 for IPv4, whose TTL is the upper half of its checksum's word.
static __always_inline void count_hop(struct data_packet *packet)
{
	__u32 sum;

	if (packet->ip6) {
		packet->ip6->hop_limit--;
	} else if (packet->ip4) {
		packet->ip4->ttl--;
		sum = packet->ip4->check + bpf_htons(0x0100);
		packet->ip4->check = sum + (sum >= 0xffff);
	}
}

// The interface the packet was sent on to, or 0: the usual way.
static __always_inline __u32 take_shortcut(struct xdp_md *ctx)
{
	struct data_packet packet = {};
	const struct weft_shortcut *shortcut;
	struct weft_shortcut_use *use;

	if (!data_packet(ctx, &packet))
		return 0;
	shortcut = bpf_map_lookup_elem(&shortcuts, &packet.key);
	if (!shortcut || !holds(shortcut) || packet.bytes > shortcut->mtu ||
	    !same_mac(packet.ethernet->h_source, shortcut->pod_mac) ||
	    !same_mac(packet.ethernet->h_dest, shortcut->gateway_mac))
		return 0;
	use = bpf_map_lookup_elem(&shortcut_uses, &shortcut->place);
	if (!use || use->ticket != shortcut->ticket)
		return 0;
	note_use(use, &packet);
	count_hop(&packet);
	__builtin_memcpy(packet.ethernet->h_source, shortcut->gateway_mac, ETH_ALEN);
	__builtin_memcpy(packet.ethernet->h_dest, shortcut->peer_mac, ETH_ALEN);
	return shortcut->tx_ifindex;
}
