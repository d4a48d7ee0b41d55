// SPDX-License-Identifier: Apache-2.0
//
// Host end of a pod's veth, and the dataplane's end of weft0: every frame goes to the socket. Without one
// it is dropped: a pod must never reach the kernel's stack past policy.
#include "redirect.h"

SEC("xdp.frags")
int weft_pod(struct xdp_md *ctx)
{
	const struct outcomes outcomes = {
		.taken = WEFT_POD_TAKEN,
		.unknown_port = WEFT_POD_UNKNOWN_PORT,
		.no_socket = WEFT_POD_NO_SOCKET,
		.fallback = XDP_DROP,
	};

	return redirect(ctx, &outcomes);
}

char LICENSE[] SEC("license") = "Apache-2.0";
