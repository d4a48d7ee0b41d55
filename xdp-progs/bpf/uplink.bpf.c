// SPDX-License-Identifier: Apache-2.0
//
// Underlay interface: takes what is ours and leaves everything else to the kernel, so that the node
// stays reachable whatever happens to the dataplane.
//
// Ours are, for IPv4 and IPv6 alike:
//  - VXLAN with our VNI to one of our tunnel endpoint addresses;
//  - "too big" ICMP errors to such an address that quote our own VXLAN: they lower the tunnel's MTU;
//  - packets to routed pod prefixes;
//  - packets to an address and port where a service is for clients outside, errors that quote one
//    from there, fragments to an address that is of services alone, and those behind a first one to a
//    node port.
// Everything else to such an address is the kernel's: other ports, pings, the node's own connections
// (own.h). A VLAN tag in the frame means another network (the VLAN device has its own program), an outer
// fragment is the kernel's to reassemble, a foreign VNI is somebody else's overlay.
#include "fragments.h"
#include "maps.h"
#include "own.h"
#include "parse.h"
#include "redirect.h"
#include "shortcut.h"
#include "steering.h"

static __always_inline const struct weft_tunnel *our_tunnel(void)
{
	__u32 only = 0;

	return bpf_map_lookup_elem(&tunnel, &only);
}

static __always_inline enum weft_verdict vxlan(struct cursor *cursor)
{
	const struct weft_tunnel *ours = our_tunnel();
	const struct vxlan_header *header;

	if (!ours || !take(cursor, sizeof(struct udphdr)))
		return WEFT_PASS_SHORT;
	header = take(cursor, sizeof(*header));
	if (!header)
		return WEFT_PASS_SHORT;
	if (!(header->flags_be & bpf_htonl(VXLAN_FLAG_VNI)) ||
	    bpf_ntohl(header->vni_be) >> VXLAN_VNI_SHIFT != ours->vni)
		return WEFT_PASS_FOREIGN_VNI;
	return WEFT_UPLINK_VXLAN;
}

static __always_inline int is_tunnel_port(__u8 protocol, __be16 port_be)
{
	const struct weft_tunnel *ours = our_tunnel();

	return ours && protocol == IPPROTO_UDP && port_be == ours->vxlan_port_be;
}

// Whether a packet with these ends is to a service.
static __always_inline int is_service4(struct xdp_md *ctx, __be32 from, __be32 to, __u8 protocol,
				       struct transport_ports ports)
{
	struct weft_frontend4 key = { .port_be = ports.destination_be, .protocol = protocol };

	__builtin_memcpy(&key.address, &to, sizeof(key.address));
	return bpf_map_lookup_elem(&frontends4, &key) &&
	       !is_own4(ctx, from, to, protocol, ports);
}

static __always_inline int is_service6(struct xdp_md *ctx, const struct in6_addr *from,
				       const struct in6_addr *to, __u8 protocol,
				       struct transport_ports ports)
{
	struct weft_frontend6 key = { .port_be = ports.destination_be, .protocol = protocol };

	__builtin_memcpy(&key.address, to, sizeof(key.address));
	return bpf_map_lookup_elem(&frontends6, &key) &&
	       !is_own6(ctx, from, to, protocol, ports);
}

// The ports of a packet that answers one with `sent`.
static __always_inline struct transport_ports answers(const struct transport_ports *sent)
{
	return (struct transport_ports){
		.source_be = sent->destination_be,
		.destination_be = sent->source_be,
	};
}

// RFC 792: the error quotes the offending packet's IP header and its first 8 bytes. Whoever it is
// addressed to sent that packet: our tunnel, a service, or the node itself.
static __always_inline enum weft_verdict icmp4(struct xdp_md *ctx, struct cursor *cursor,
					       const struct iphdr *ip, enum weft_verdict other)
{
	const struct icmp_header *icmp = take(cursor, sizeof(*icmp));
	const struct transport_ports *ports;
	const struct iphdr *quoted;
	int too_big, bad = 0;

	if (!icmp)
		return WEFT_PASS_SHORT;
	if (icmp->type != ICMP4_UNREACHABLE && icmp->type != ICMP4_TIME_EXCEEDED &&
	    icmp->type != ICMP4_PARAMETER_PROBLEM)
		return other;
	too_big = icmp->type == ICMP4_UNREACHABLE && icmp->code == ICMP4_FRAGMENTATION_NEEDED;
	quoted = take_ipv4(cursor, &bad);
	if (!quoted)
		return bad ? WEFT_PASS_BAD_HEADER : WEFT_PASS_SHORT;
	if (quoted->saddr != ip->daddr || !has_ports(quoted->protocol) ||
	    quoted->frag_off & bpf_htons(IPV4_OFFSET_MASK))
		return WEFT_PASS_OTHER_QUOTE;
	ports = take(cursor, QUOTED_UPPER_LEN);
	if (!ports)
		return WEFT_PASS_SHORT;
	if (is_tunnel_port(quoted->protocol, ports->destination_be) && other == WEFT_PASS_NODE)
		return too_big ? WEFT_UPLINK_TOO_BIG : WEFT_PASS_NODE;
	if (is_service4(ctx, quoted->daddr, quoted->saddr, quoted->protocol, answers(ports)))
		return WEFT_UPLINK_SERVICE_ERROR;
	return WEFT_PASS_OTHER_QUOTE;
}

// RFC 4443 section 3: errors are types 1 to 4.
static __always_inline enum weft_verdict icmp6(struct xdp_md *ctx, struct cursor *cursor,
					       const struct ipv6hdr *ip, enum weft_verdict other)
{
	const struct icmp_header *icmp = take(cursor, sizeof(*icmp));
	const struct transport_ports *ports;
	const struct ipv6hdr *quoted;
	int bad = 0;

	if (!icmp)
		return WEFT_PASS_SHORT;
	if (icmp->type < ICMP6_UNREACHABLE || icmp->type > ICMP6_PARAMETER_PROBLEM)
		return other;
	quoted = take_ipv6(cursor, &bad);
	if (!quoted)
		return bad ? WEFT_PASS_BAD_HEADER : WEFT_PASS_SHORT;
	if (!same_address6(&quoted->saddr, &ip->daddr) || !has_ports(quoted->nexthdr))
		return WEFT_PASS_OTHER_QUOTE;
	ports = take(cursor, QUOTED_UPPER_LEN);
	if (!ports)
		return WEFT_PASS_SHORT;
	if (is_tunnel_port(quoted->nexthdr, ports->destination_be) && other == WEFT_PASS_NODE)
		return icmp->type == ICMP6_PACKET_TOO_BIG ? WEFT_UPLINK_TOO_BIG : WEFT_PASS_NODE;
	if (is_service6(ctx, &quoted->daddr, &quoted->saddr, quoted->nexthdr, answers(ports)))
		return WEFT_UPLINK_SERVICE_ERROR;
	return WEFT_PASS_OTHER_QUOTE;
}

static __always_inline enum weft_verdict fragment4(struct xdp_md *ctx, struct cursor *cursor,
						   const struct iphdr *ip, enum weft_verdict other)
{
	struct datagram datagram = { .id_be = ip->id, .protocol = ip->protocol };
	const struct transport_ports *ports;

	map_address(datagram.source, ip->saddr);
	map_address(datagram.destination, ip->daddr);
	if (ip->frag_off & bpf_htons(IPV4_OFFSET_MASK))
		return later_fragment(&datagram, other);
	ports = take(cursor, sizeof(*ports));
	if (!ports)
		return WEFT_PASS_SHORT;
	return first_fragment(&datagram,
			      is_service4(ctx, ip->saddr, ip->daddr, ip->protocol, *ports),
			      other);
}

static __always_inline enum weft_verdict fragment6(struct xdp_md *ctx, struct cursor *cursor,
						   const struct ipv6hdr *ip, enum weft_verdict other)
{
	const struct fragment_header *header = take(cursor, sizeof(*header));
	struct datagram datagram = {};
	const struct transport_ports *ports;

	if (!header)
		return WEFT_PASS_SHORT;
	if (!has_ports(header->next))
		return other;
	datagram.id_be = header->id_be;
	datagram.protocol = header->next;
	__builtin_memcpy(datagram.source, &ip->saddr, sizeof(ip->saddr));
	__builtin_memcpy(datagram.destination, &ip->daddr, sizeof(ip->daddr));
	if (header->offset_be & bpf_htons(IPV6_OFFSET_MASK))
		return later_fragment(&datagram, other);
	ports = take(cursor, sizeof(*ports));
	if (!ports)
		return WEFT_PASS_SHORT;
	return first_fragment(&datagram,
			      is_service6(ctx, &ip->saddr, &ip->daddr, header->next, *ports),
			      other);
}

static __always_inline enum weft_verdict ipv4(struct xdp_md *ctx, struct cursor *cursor)
{
	struct weft_prefix4 key = { .prefix_len = 32 };
	enum weft_verdict other = WEFT_PASS_NODE;
	const struct transport_ports *ports;
	const struct iphdr *ip;
	struct cursor upper;
	int bad = 0;

	ip = take_ipv4(cursor, &bad);
	if (!ip)
		return bad ? WEFT_PASS_BAD_HEADER : WEFT_PASS_SHORT;
	__builtin_memcpy(&key.address, &ip->daddr, sizeof(key.address));
	if (!bpf_map_lookup_elem(&local4, &key.address)) {
		if (bpf_map_lookup_elem(&routed4, &key))
			return WEFT_UPLINK_ROUTED;
		other = WEFT_PASS_NOT_OURS;
	}
	if (ip->protocol != IPPROTO_ICMP && !has_ports(ip->protocol))
		return other;
	if (ip->frag_off & bpf_htons(IPV4_FRAGMENT_MASK)) {
		if (bpf_map_lookup_elem(&services4, &key.address))
			return WEFT_UPLINK_SERVICE_FRAGMENT;
		return fragment4(ctx, cursor, ip,
				 other == WEFT_PASS_NODE ? WEFT_PASS_FRAGMENT : other);
	}
	if (ip->protocol == IPPROTO_ICMP)
		return icmp4(ctx, cursor, ip, other);
	upper = *cursor;
	ports = take(&upper, sizeof(*ports));
	if (!ports)
		return WEFT_PASS_SHORT;
	if (other == WEFT_PASS_NODE && is_tunnel_port(ip->protocol, ports->destination_be))
		return vxlan(cursor);
	if (is_service4(ctx, ip->saddr, ip->daddr, ip->protocol, *ports))
		return WEFT_UPLINK_SERVICE;
	return other;
}

static __always_inline enum weft_verdict ipv6(struct xdp_md *ctx, struct cursor *cursor)
{
	struct weft_prefix6 key = { .prefix_len = 128 };
	enum weft_verdict other = WEFT_PASS_NODE;
	const struct transport_ports *ports;
	const struct ipv6hdr *ip;
	struct cursor upper;
	int bad = 0;

	ip = take_ipv6(cursor, &bad);
	if (!ip)
		return bad ? WEFT_PASS_BAD_HEADER : WEFT_PASS_SHORT;
	__builtin_memcpy(&key.address, &ip->daddr, sizeof(key.address));
	if (!bpf_map_lookup_elem(&local6, &key.address)) {
		if (bpf_map_lookup_elem(&routed6, &key))
			return WEFT_UPLINK_ROUTED;
		other = WEFT_PASS_NOT_OURS;
	}
	if (ip->nexthdr == IPPROTO_FRAGMENT) {
		if (bpf_map_lookup_elem(&services6, &key.address))
			return WEFT_UPLINK_SERVICE_FRAGMENT;
		return fragment6(ctx, cursor, ip,
				 other == WEFT_PASS_NODE ? WEFT_PASS_FRAGMENT : other);
	}
	if (ip->nexthdr == IPPROTO_ICMPV6)
		return icmp6(ctx, cursor, ip, other);
	// No tunnel endpoint sends extension headers; whatever has them is the node's.
	if (!has_ports(ip->nexthdr))
		return other;
	upper = *cursor;
	ports = take(&upper, sizeof(*ports));
	if (!ports)
		return WEFT_PASS_SHORT;
	if (other == WEFT_PASS_NODE && is_tunnel_port(ip->nexthdr, ports->destination_be))
		return vxlan(cursor);
	if (is_service6(ctx, &ip->saddr, &ip->daddr, ip->nexthdr, *ports))
		return WEFT_UPLINK_SERVICE;
	return other;
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
		return ipv4(ctx, &cursor);
	case bpf_htons(ETH_P_IPV6):
		return ipv6(ctx, &cursor);
	case bpf_htons(ETH_P_8021Q):
	case bpf_htons(ETH_P_8021AD):
		return WEFT_PASS_VLAN;
	default:
		return WEFT_PASS_NOT_IP;
	}
}

// RFC 3168: the mark of routers on the way. One in the outer header alone is for the dataplane.
#define ECN_MASK 0x3

// Whether a shortcut is for what comes in such a tunnel packet.
static __always_inline int comes_by(const struct weft_shortcut *shortcut, const struct front4 *outer,
				    const struct data_packet *packet)
{
	return shortcut->to == WEFT_TO_POD &&
	       !__builtin_memcmp(&shortcut->tunnel_source, &outer->ip.saddr, 4) &&
	       !__builtin_memcmp(&shortcut->tunnel_destination, &outer->ip.daddr, 4) &&
	       packet->bytes <= shortcut->mtu &&
	       !((packet->class ^ outer->ip.tos) & ECN_MASK) && fits(shortcut, packet->ethernet);
}

// Whether a tunnel packet is as long as its headers say, and what is in it as well.
static __always_inline int is_whole(struct xdp_md *ctx, const struct front4 *outer,
				    const struct data_packet *packet)
{
	__u32 udp_bytes = sizeof(outer->udp) + sizeof(outer->tunnel) + ETH_HLEN + packet->bytes;

	return bpf_ntohs(outer->udp.len) == udp_bytes &&
	       bpf_xdp_get_buff_len(ctx) == ETH_HLEN + sizeof(outer->ip) + udp_bytes;
}

// A checksum from the wire is a whole one. A datagram without one stays so.
static __always_inline void translate(struct data_packet *packet,
				      const struct weft_shortcut *shortcut)
{
	const struct translation by = replace_ends(packet, shortcut);
	int is_datagram = packet->key.protocol == IPPROTO_UDP;

	if (is_datagram && !*packet->checksum)
		return;
	*packet->checksum = changed(*packet->checksum, (__u64)(__u32)by.addresses + (__u32)by.ports);
	if (is_datagram && !*packet->checksum)
		*packet->checksum = 0xffff;
}

// Out of the tunnel and into the pod, when the connection has a shortcut. The pod's end makes large packets
// of a stream's again (veth_poll, drivers/net/veth.c). 0: it has none.
static __always_inline int by_shortcut(struct xdp_md *ctx)
{
	struct cursor cursor = {
		.pos = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	const struct front4 *outer = take(&cursor, sizeof(*outer));
	const struct weft_shortcut *shortcut;
	struct weft_shortcut_use *use;
	struct data_packet packet = {};

	if (!outer || outer->ethernet.h_proto != bpf_htons(ETH_P_IP) || outer->ip.ihl != 5 ||
	    outer->udp.check || !frame_data(&cursor, &packet, 0) || !is_whole(ctx, outer, &packet))
		return 0;
	shortcut = bpf_map_lookup_elem(&shortcuts, &packet.key);
	if (!shortcut || shortcut->rx_ifindex != ctx->ingress_ifindex ||
	    !comes_by(shortcut, outer, &packet) || !holds(shortcut))
		return 0;
	use = counted(shortcut);
	if (!use)
		return 0;
	note_use(use, &packet);
	forward(&packet, shortcut);
	if (shortcut->translated)
		translate(&packet, shortcut);
	// Cannot fail: what goes was read.
	bpf_xdp_adjust_head(ctx, sizeof(*outer));
	count(WEFT_UPLINK_SHORTCUT);
	return bpf_redirect(shortcut->tx_ifindex, 0);
}

SEC("xdp.frags")
int weft_uplink(struct xdp_md *ctx)
{
	enum weft_verdict verdict = classify(ctx);
	int action = verdict == WEFT_UPLINK_VXLAN ? by_shortcut(ctx) : 0;
	const struct outcomes outcomes = {
		.taken = verdict,
		.unknown_port = WEFT_PASS_UNKNOWN_PORT,
		.no_socket = WEFT_PASS_NO_SOCKET,
		.fallback = XDP_PASS,
	};

	if (action)
		return action;
	if (verdict > WEFT_UPLINK_SERVICE_ERROR) {
		count(verdict);
		return XDP_PASS;
	}
	return redirect(ctx, &outcomes);
}

char LICENSE[] SEC("license") = "Apache-2.0";
