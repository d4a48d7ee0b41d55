// SPDX-License-Identifier: Apache-2.0
//
// Just enough parsing to tell whose packet it is. Reads the linear part of the frame only: our
// drivers put at least the headers there, and a header that is elsewhere counts as short (PASS).
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "intf.h"

// RFC 7348 section 5: the I flag, then 24 bits of VNI in the upper part of the second word.
struct vxlan_header {
	__be32 flags_be;
	__be32 vni_be;
};
#define VXLAN_FLAG_VNI 0x08000000
#define VXLAN_VNI_SHIFT 8

// RFC 792 and RFC 4443: the same eight bytes in both families. (The kernel's <linux/icmp.h> pulls in
// the C library's socket headers, which do not exist for this target.)
struct icmp_header {
	__u8 type;
	__u8 code;
	__be16 checksum_be;
	__be32 rest_be;
};
#define ICMP4_UNREACHABLE 3
#define ICMP4_FRAGMENTATION_NEEDED 4
#define ICMP4_TIME_EXCEEDED 11
#define ICMP4_PARAMETER_PROBLEM 12
#define ICMP6_UNREACHABLE 1
#define ICMP6_PACKET_TOO_BIG 2
#define ICMP6_PARAMETER_PROBLEM 4

// Of the packet an ICMP error is about, behind its IP header (RFC 792).
#define QUOTED_UPPER_LEN 8

// TCP, UDP and SCTP begin with these.
struct transport_ports {
	__be16 source_be;
	__be16 destination_be;
};

// RFC 791: more-fragments flag and offset. Either set makes the packet a fragment.
#define IPV4_FRAGMENT_MASK 0x3fff
#define IPV4_OFFSET_MASK 0x1fff

// Where no packet goes (RFC 1122 section 3.2.1.3): the address in front of the pieces of a large one.
#define NOWHERE 0

// The unread rest of the frame.
struct cursor {
	void *pos;
	void *end;
};

// The next `len` bytes, or NULL when the frame ends before.
static __always_inline void *take(struct cursor *cursor, __u32 len)
{
	void *start = cursor->pos;

	if (start + len > cursor->end)
		return NULL;
	cursor->pos = start + len;
	return start;
}

// An IPv4 header with its options, or NULL; `*bad` tells a nonsense length from a short frame.
static __always_inline struct iphdr *take_ipv4(struct cursor *cursor, int *bad)
{
	struct iphdr *ip = take(cursor, sizeof(*ip));
	__u32 options;

	if (!ip)
		return NULL;
	if (ip->version != 4 || ip->ihl < 5) {
		*bad = 1;
		return NULL;
	}
	options = (ip->ihl - 5) * 4;
	if (!take(cursor, options & 0x3f))
		return NULL;
	return ip;
}

static __always_inline struct ipv6hdr *take_ipv6(struct cursor *cursor, int *bad)
{
	struct ipv6hdr *ip = take(cursor, sizeof(*ip));

	if (ip && ip->version != 6) {
		*bad = 1;
		return NULL;
	}
	return ip;
}

static __always_inline int has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

static __always_inline int same_address6(const struct in6_addr *a, const struct in6_addr *b)
{
	return a->s6_addr32[0] == b->s6_addr32[0] && a->s6_addr32[1] == b->s6_addr32[1] &&
	       a->s6_addr32[2] == b->s6_addr32[2] && a->s6_addr32[3] == b->s6_addr32[3];
}
