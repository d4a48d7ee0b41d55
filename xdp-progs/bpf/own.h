// SPDX-License-Identifier: Apache-2.0
//
// Connections of the node's own processes. The kernel may give one a port that is a pod's host port or a node
// port as well (net.ipv4.ip_local_port_range): what comes back to it is no client's.
#pragma once

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/in6.h>

#include <bpf/bpf_helpers.h>

#include "parse.h"

// Whether a socket of the node is connected to where a packet comes from. One that listens is not, nor is what is
// left of one that was closed (TIME_WAIT).
static __always_inline int is_own(struct xdp_md *ctx, struct bpf_sock_tuple *ends, __u32 ends_bytes,
				  __u8 protocol)
{
	struct bpf_sock *socket = NULL;
	int is_connected;

	if (protocol == IPPROTO_TCP)
		socket = bpf_sk_lookup_tcp(ctx, ends, ends_bytes, BPF_F_CURRENT_NETNS, 0);
	else if (protocol == IPPROTO_UDP)
		socket = bpf_sk_lookup_udp(ctx, ends, ends_bytes, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return 0;
	is_connected = socket->dst_port != 0;
	bpf_sk_release(socket);
	return is_connected;
}

// The ends as a packet to the node has them, `from` outside.
static __always_inline int is_own4(struct xdp_md *ctx, __be32 from, __be32 to, __u8 protocol,
				   struct transport_ports ports)
{
	struct bpf_sock_tuple ends = {};

	ends.ipv4.saddr = from;
	ends.ipv4.daddr = to;
	ends.ipv4.sport = ports.source_be;
	ends.ipv4.dport = ports.destination_be;
	return is_own(ctx, &ends, sizeof(ends.ipv4), protocol);
}

static __always_inline int is_own6(struct xdp_md *ctx, const struct in6_addr *from,
				   const struct in6_addr *to, __u8 protocol,
				   struct transport_ports ports)
{
	struct bpf_sock_tuple ends = {};

	__builtin_memcpy(ends.ipv6.saddr, from, sizeof(*from));
	__builtin_memcpy(ends.ipv6.daddr, to, sizeof(*to));
	ends.ipv6.sport = ports.source_be;
	ends.ipv6.dport = ports.destination_be;
	return is_own(ctx, &ends, sizeof(ends.ipv6), protocol);
}
