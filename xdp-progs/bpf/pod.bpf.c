// SPDX-License-Identifier: Apache-2.0
//
// Host end of a pod's veth, and the dataplane's end of weft0: every frame goes to the socket, or by a
// shortcut to another pod. Without a socket it is dropped: a pod must never reach the kernel's stack past
// policy.
#include "redirect.h"
#include "shortcut.h"

SEC("xdp.frags")
int weft_pod(struct xdp_md *ctx)
{
	const struct outcomes outcomes = {
		.taken = WEFT_POD_TAKEN,
		.unknown_port = WEFT_POD_UNKNOWN_PORT,
		.no_socket = WEFT_POD_NO_SOCKET,
		.fallback = XDP_DROP,
	};
	__u32 peer = take_shortcut(ctx);

	if (peer) {
		count(WEFT_POD_SHORTCUT);
		return bpf_redirect(peer, 0);
	}
	return redirect(ctx, &outcomes);
}

char LICENSE[] SEC("license") = "Apache-2.0";
