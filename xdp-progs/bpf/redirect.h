// SPDX-License-Identifier: Apache-2.0
//
// The one way into a socket, for both programs.
#pragma once

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "intf.h"
#include "maps.h"

// How one attempt to reach the socket of (interface, queue) ends. The verdicts differ per program,
// the order of the checks does not.
struct outcomes {
	enum weft_verdict taken;
	enum weft_verdict unknown_port;
	enum weft_verdict no_socket;
	// What happens to the packet in the last two cases.
	enum xdp_action fallback;
};

static __always_inline int redirect(struct xdp_md *ctx, const struct outcomes *outcomes)
{
	__u32 ifindex = ctx->ingress_ifindex;
	__u32 queue = ctx->rx_queue_index;
	struct weft_port *port = bpf_map_lookup_elem(&ports, &ifindex);
	int action;

	if (!port) {
		count(outcomes->unknown_port);
		return outcomes->fallback;
	}
	// A queue beyond the port's own would land in the next port's socket.
	if (queue >= port->queues) {
		count(outcomes->no_socket);
		return outcomes->fallback;
	}
	action = bpf_redirect_map(&xsks, port->base_slot + queue, outcomes->fallback);
	count(action == XDP_REDIRECT ? outcomes->taken : outcomes->no_socket);
	return action;
}
