// SPDX-License-Identifier: Apache-2.0
//
// The kernel's own short cut, as eBPF networks use it: the benchmark's peer `kernel-ebpf`. A packet
// for a local pod jumps straight into the pod's namespace (bpf_redirect_peer), one for elsewhere
// straight to the wire's neighbour (bpf_redirect_neigh); neither enters the node's stack.
//
// Attached at tc ingress of every pod's host end and of the wire.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <stddef.h>

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

/* The few helpers needed, by their number in <linux/bpf.h>: no library header has to be found. */
static void *(*map_lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*store_bytes)(struct __sk_buff *skb, __u32 offset, const void *from, __u32 len,
			   __u64 flags) = (void *)BPF_FUNC_skb_store_bytes;
static long (*l3_csum_replace)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to,
			       __u64 size) = (void *)BPF_FUNC_l3_csum_replace;
static long (*redirect_peer)(__u32 ifindex, __u64 flags) = (void *)BPF_FUNC_redirect_peer;
static long (*redirect_neigh)(__u32 ifindex, void *params, int len,
			      __u64 flags) = (void *)BPF_FUNC_redirect_neigh;

/* A pod of this node, as its host end knows it. */
struct endpoint {
	__u32 ifindex;
	__u8 mac[ETH_ALEN];
	__u8 host_mac[ETH_ALEN];
};

/* By address, in network order. Every packet pays for this look-up, as it does in the real thing. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

/* Entry 0: the wire's ifindex. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} uplink SEC(".maps");

/* One hop less to live; its checksum follows. */
static inline int age(struct __sk_buff *skb, struct iphdr *ip)
{
	__u8 old = ip->ttl, new = old - 1;

	if (old <= 1)
		return -1;
	l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), old, new, 2);
	return store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, ttl), &new, sizeof(new), 0);
}

static inline int deliver(struct __sk_buff *skb, const struct endpoint *to)
{
	if (store_bytes(skb, offsetof(struct ethhdr, h_dest), to->mac, ETH_ALEN, 0) ||
	    store_bytes(skb, offsetof(struct ethhdr, h_source), to->host_mac, ETH_ALEN, 0))
		return TC_ACT_SHOT;
	return redirect_peer(to->ifindex, 0);
}

static inline int forward(struct __sk_buff *skb, int from_pod)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	struct endpoint *to;
	__u32 zero = 0, *wire, daddr;

	if ((void *)(ip + 1) > end || skb->protocol != __builtin_bswap16(ETH_P_IP))
		return TC_ACT_OK;
	daddr = ip->daddr;
	to = map_lookup(&endpoints, &daddr);
	if (!to && !from_pod)
		return TC_ACT_OK;
	if (age(skb, ip))
		return TC_ACT_OK;
	if (to)
		return deliver(skb, to);
	wire = map_lookup(&uplink, &zero);
	return wire && *wire ? redirect_neigh(*wire, NULL, 0, 0) : TC_ACT_OK;
}

SEC("tc/pod")
int from_pod(struct __sk_buff *skb)
{
	return forward(skb, 1);
}

SEC("tc/wire")
int from_wire(struct __sk_buff *skb)
{
	return forward(skb, 0);
}

char LICENSE[] SEC("license") = "GPL";
