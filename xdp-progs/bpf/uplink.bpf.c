// SPDX-License-Identifier: Apache-2.0
//
// Underlay interface: takes what is ours and leaves everything else to the kernel, so that the node
// stays reachable whatever happens to the dataplane.
//
// Ours are, for IPv4 and IPv6 alike:
//  - VXLAN with our VNI to one of our tunnel endpoint addresses;
//  - "too big" ICMP errors to such an address that quote our own VXLAN: they lower the tunnel's MTU;
//  - packets to routed pod prefixes and to announced service addresses.
// A VLAN tag in the frame means another network (the VLAN device has its own program), an outer
// fragment is the kernel's to reassemble, a foreign VNI is somebody else's overlay.
#include "maps.h"
#include "parse.h"
#include "redirect.h"
#include "steering.h"

static __always_inline const struct weft_tunnel *our_tunnel(void)
{
	__u32 only = 0;

	return bpf_map_lookup_elem(&tunnel, &only);
}

static __always_inline enum weft_verdict vxlan(struct cursor *cursor, const struct udphdr *udp)
{
	const struct weft_tunnel *ours = our_tunnel();
	const struct vxlan_header *header;

	if (!ours || udp->dest != ours->vxlan_port_be)
		return WEFT_PASS_NODE;
	header = take(cursor, sizeof(*header));
	if (!header)
		return WEFT_PASS_SHORT;
	if (!(header->flags_be & bpf_htonl(VXLAN_FLAG_VNI)) ||
	    bpf_ntohl(header->vni_be) >> VXLAN_VNI_SHIFT != ours->vni)
		return WEFT_PASS_FOREIGN_VNI;
	return WEFT_UPLINK_VXLAN;
}

// The UDP header quoted in an ICMP error: is it our tunnel's?
static __always_inline enum weft_verdict quoted_udp(struct cursor *cursor)
{
	const struct weft_tunnel *ours = our_tunnel();
	const struct udphdr *udp = take(cursor, sizeof(*udp));

	if (!udp)
		return WEFT_PASS_SHORT;
	if (!ours || udp->dest != ours->vxlan_port_be)
		return WEFT_PASS_OTHER_QUOTE;
	return WEFT_UPLINK_TOO_BIG;
}

// RFC 792: the error quotes the offending packet's IP header and its first 8 bytes.
static __always_inline enum weft_verdict icmp4(struct cursor *cursor, __be32 our_address)
{
	const struct icmp_header *icmp = take(cursor, sizeof(*icmp));
	const struct iphdr *quoted;
	int bad = 0;

	if (!icmp)
		return WEFT_PASS_SHORT;
	if (icmp->type != ICMP4_UNREACHABLE || icmp->code != ICMP4_FRAGMENTATION_NEEDED)
		return WEFT_PASS_NODE;
	quoted = take_ipv4(cursor, &bad);
	if (!quoted)
		return bad ? WEFT_PASS_BAD_HEADER : WEFT_PASS_SHORT;
	if (quoted->saddr != our_address || quoted->protocol != IPPROTO_UDP ||
	    quoted->frag_off & bpf_htons(IPV4_OFFSET_MASK))
		return WEFT_PASS_OTHER_QUOTE;
	return quoted_udp(cursor);
}

// RFC 4443 section 3.2.
static __always_inline enum weft_verdict icmp6(struct cursor *cursor,
					       const struct in6_addr *our_address)
{
	const struct icmp_header *icmp = take(cursor, sizeof(*icmp));
	const struct ipv6hdr *quoted;
	int bad = 0;

	if (!icmp)
		return WEFT_PASS_SHORT;
	if (icmp->type != ICMP6_PACKET_TOO_BIG)
		return WEFT_PASS_NODE;
	quoted = take_ipv6(cursor, &bad);
	if (!quoted)
		return bad ? WEFT_PASS_BAD_HEADER : WEFT_PASS_SHORT;
	if (!same_address6(&quoted->saddr, our_address) || quoted->nexthdr != IPPROTO_UDP)
		return WEFT_PASS_OTHER_QUOTE;
	return quoted_udp(cursor);
}

static __always_inline enum weft_verdict ipv4(struct cursor *cursor)
{
	const struct udphdr *udp;
	struct weft_prefix4 key = { .prefix_len = 32 };
	const struct iphdr *ip;
	int bad = 0;

	ip = take_ipv4(cursor, &bad);
	if (!ip)
		return bad ? WEFT_PASS_BAD_HEADER : WEFT_PASS_SHORT;
	__builtin_memcpy(&key.address, &ip->daddr, sizeof(key.address));
	if (!bpf_map_lookup_elem(&local4, &key.address)) {
		if (bpf_map_lookup_elem(&routed4, &key))
			return WEFT_UPLINK_ROUTED;
		if (bpf_map_lookup_elem(&services4, &key.address))
			return WEFT_UPLINK_SERVICE;
		return WEFT_PASS_NOT_OURS;
	}
	if (ip->protocol != IPPROTO_UDP && ip->protocol != IPPROTO_ICMP)
		return WEFT_PASS_NODE;
	if (ip->frag_off & bpf_htons(IPV4_FRAGMENT_MASK))
		return WEFT_PASS_FRAGMENT;
	if (ip->protocol == IPPROTO_ICMP)
		return icmp4(cursor, ip->daddr);
	udp = take(cursor, sizeof(*udp));
	if (!udp)
		return WEFT_PASS_SHORT;
	return vxlan(cursor, udp);
}

static __always_inline enum weft_verdict ipv6(struct cursor *cursor)
{
	const struct udphdr *udp;
	struct weft_prefix6 key = { .prefix_len = 128 };
	const struct ipv6hdr *ip;
	int bad = 0;

	ip = take_ipv6(cursor, &bad);
	if (!ip)
		return bad ? WEFT_PASS_BAD_HEADER : WEFT_PASS_SHORT;
	__builtin_memcpy(&key.address, &ip->daddr, sizeof(key.address));
	if (!bpf_map_lookup_elem(&local6, &key.address)) {
		if (bpf_map_lookup_elem(&routed6, &key))
			return WEFT_UPLINK_ROUTED;
		if (bpf_map_lookup_elem(&services6, &key.address))
			return WEFT_UPLINK_SERVICE;
		return WEFT_PASS_NOT_OURS;
	}
	if (ip->nexthdr == IPPROTO_FRAGMENT)
		return WEFT_PASS_FRAGMENT;
	if (ip->nexthdr == IPPROTO_ICMPV6)
		return icmp6(cursor, &ip->daddr);
	// No tunnel endpoint sends extension headers; whatever has them is the node's.
	if (ip->nexthdr != IPPROTO_UDP)
		return WEFT_PASS_NODE;
	udp = take(cursor, sizeof(*udp));
	if (!udp)
		return WEFT_PASS_SHORT;
	return vxlan(cursor, udp);
}

static __always_inline enum weft_verdict classify(struct xdp_md *ctx)
{
	struct cursor cursor = {
		.pos = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	const struct ethhdr *ethernet = take(&cursor, sizeof(*ethernet));

	// The kernel never runs a program on less than an Ethernet header; the verifier wants to know.
	if (!ethernet)
		return WEFT_PASS_SHORT;
	switch (ethernet->h_proto) {
	case bpf_htons(ETH_P_IP):
		return ipv4(&cursor);
	case bpf_htons(ETH_P_IPV6):
		return ipv6(&cursor);
	case bpf_htons(ETH_P_8021Q):
	case bpf_htons(ETH_P_8021AD):
		return WEFT_PASS_VLAN;
	default:
		return WEFT_PASS_NOT_IP;
	}
}

SEC("xdp.frags")
int weft_uplink(struct xdp_md *ctx)
{
	enum weft_verdict verdict = classify(ctx);
	const struct outcomes outcomes = {
		.taken = verdict,
		.unknown_port = WEFT_PASS_UNKNOWN_PORT,
		.no_socket = WEFT_PASS_NO_SOCKET,
		.fallback = XDP_PASS,
	};

	if (verdict > WEFT_UPLINK_SERVICE) {
		count(verdict);
		return XDP_PASS;
	}
	return redirect(ctx, &outcomes);
}

char LICENSE[] SEC("license") = "Apache-2.0";
