// SPDX-License-Identifier: Apache-2.0
//
// Fragments of datagrams to a node port. Only the first says which port it is for; those behind it follow. What
// overtakes its first fragment is the kernel's, which waits for the rest in vain.
#pragma once

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "intf.h"

// Datagrams of which later fragments may be yet to come, of all clients.
#define FRAGMENTED_MAX 4096

// As long as the kernel waits for the rest of a datagram (net.ipv4.ipfrag_time, net.ipv6.ip6frag_time).
#define REASSEMBLY_NS 30000000000ULL

// RFC 8200 section 4.5.
struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset_be;
	__be32 id_be;
};
#define IPV6_OFFSET_MASK 0xfff8

// Which datagram a fragment is of (RFC 791 section 3.2, RFC 8200 section 4.5). IPv4 addresses are among those of
// IPv6 (RFC 4291 section 2.5.5.2).
struct datagram {
	__u8 source[16];
	__u8 destination[16];
	__be32 id_be;
	__u8 protocol;
	__u8 pad[3];
};
_Static_assert(sizeof(struct datagram) == 40, "datagram");

// Datagrams whose first fragment was taken, and when. Strangers fill it, so that the oldest give way.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FRAGMENTED_MAX);
	__type(key, struct datagram);
	__type(value, __u64);
} fragmented SEC(".maps");

// The first fragment of a datagram, to a port of a service or not. An identification that comes again is
// another datagram's. `other`: whose it is if not the service's.
static __always_inline enum weft_verdict first_fragment(const struct datagram *datagram,
							int is_service, enum weft_verdict other)
{
	__u64 now = bpf_ktime_get_coarse_ns();

	if (!is_service) {
		bpf_map_delete_elem(&fragmented, datagram);
		return other;
	}
	if (bpf_map_update_elem(&fragmented, datagram, &now, BPF_ANY))
		return other;
	return WEFT_UPLINK_SERVICE_FRAGMENT;
}

static __always_inline enum weft_verdict later_fragment(const struct datagram *datagram,
							enum weft_verdict other)
{
	const __u64 *since = bpf_map_lookup_elem(&fragmented, datagram);

	if (!since || bpf_ktime_get_coarse_ns() - *since > REASSEMBLY_NS)
		return other;
	return WEFT_UPLINK_SERVICE_FRAGMENT;
}
