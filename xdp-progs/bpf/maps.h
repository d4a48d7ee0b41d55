// SPDX-License-Identifier: Apache-2.0
//
// The maps every program shares. Each object declares them; the loader creates them once and hands
// the same ones to both.
#pragma once

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "intf.h"

// Bound sockets by slot. A closed socket leaves its slot by itself.
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, WEFT_SLOTS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

// Interface index -> its slots.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, WEFT_PORTS_MAX);
	__type(key, __u32);
	__type(value, struct weft_port);
} ports SEC(".maps");

// Packets by verdict (enum weft_verdict; an array's BTF must say integer).
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WEFT_VERDICTS);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps");

// Never inlined, so that the object's BTF knows the enum by this signature.
static __attribute__((noinline)) void count(enum weft_verdict verdict)
{
	__u32 index = verdict;
	__u64 *packets = bpf_map_lookup_elem(&verdicts, &index);

	if (packets)
		*packets += 1;
}
