// SPDX-License-Identifier: Apache-2.0
//
// What the uplink program takes for us. Written by the loader only.
#pragma once

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "intf.h"

// The cluster's VNI and UDP port.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct weft_tunnel);
} tunnel SEC(".maps");

// This node's tunnel endpoint addresses.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, WEFT_LOCAL_ADDRESSES_MAX);
	__type(key, struct weft_address4);
	__type(value, __u8);
} local4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, WEFT_LOCAL_ADDRESSES_MAX);
	__type(key, struct weft_address6);
	__type(value, __u8);
} local6 SEC(".maps");

// Pod prefixes that are routed to this node without encapsulation.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, WEFT_ROUTED_PREFIXES_MAX);
	__type(key, struct weft_prefix4);
	__type(value, __u8);
} routed4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, WEFT_ROUTED_PREFIXES_MAX);
	__type(key, struct weft_prefix6);
	__type(value, __u8);
} routed6 SEC(".maps");

// Addresses of services that are none of the node's own: fragments to them are a service's.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, WEFT_SERVICE_ADDRESSES_MAX);
	__type(key, struct weft_address4);
	__type(value, __u8);
} services4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, WEFT_SERVICE_ADDRESSES_MAX);
	__type(key, struct weft_address6);
	__type(value, __u8);
} services6 SEC(".maps");

// Services for clients outside, each address and port of its own.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, WEFT_FRONTENDS_MAX);
	__type(key, struct weft_frontend4);
	__type(value, __u8);
} frontends4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, WEFT_FRONTENDS_MAX);
	__type(key, struct weft_frontend6);
	__type(value, __u8);
} frontends6 SEC(".maps");
