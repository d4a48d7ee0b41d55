// SPDX-License-Identifier: Apache-2.0
//
// Host end of a pod's veth, and the dataplane's end of weft0: every frame goes to the socket. Without one
// it is dropped: a pod must never reach the kernel's stack past policy.
#include "parse.h"
#include "redirect.h"

// Takes off the header that a piece of a large packet has in front (have_cut, shortcut.bpf.c). What a pod put
// there itself goes the same way: the packet behind it is judged like any other.
static __always_inline void uncover(struct xdp_md *ctx)
{
	struct cursor cursor = {
		.pos = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	const struct ethhdr *ethernet = take(&cursor, sizeof(*ethernet));
	const struct iphdr *ip = take(&cursor, sizeof(*ip));
	struct ethhdr moved;
	void *start;

	if (!ethernet || !ip || ethernet->h_proto != bpf_htons(ETH_P_IP) || ip->version != 4 ||
	    ip->ihl != 5 || ip->protocol != IPPROTO_IPIP || ip->daddr != NOWHERE)
		return;
	moved = *ethernet;
	if (bpf_xdp_adjust_head(ctx, sizeof(*ip)))
		return;
	start = (void *)(long)ctx->data;
	if (start + sizeof(moved) <= (void *)(long)ctx->data_end)
		__builtin_memcpy(start, &moved, sizeof(moved));
}

SEC("xdp.frags")
int weft_pod(struct xdp_md *ctx)
{
	const struct outcomes outcomes = {
		.taken = WEFT_POD_TAKEN,
		.unknown_port = WEFT_POD_UNKNOWN_PORT,
		.no_socket = WEFT_POD_NO_SOCKET,
		.fallback = XDP_DROP,
	};

	uncover(ctx);
	return redirect(ctx, &outcomes);
}

char LICENSE[] SEC("license") = "Apache-2.0";
