#!/usr/bin/env bash
# With dataplane and keeper both dead a pod reaches nothing, and the node stays reachable. When they
# come back, so does the pod.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

two_nodes lan
pod node1 shop/web
pod node1 shop/client
pod node2 shop/db
targets=("$(ip4 web)" "$(ip6 web)" "$(ip4 db)" "$(ip6 db)" 192.0.2.1 2001:db8::1 192.0.2.2 "$OUT4" "$OUT6")
for to in "${targets[@]}"; do ping_ok client "$to"; done

kill9 node1 agent
kill9 node1 dataplane
kill9 node1 keeper
# A kernel that forwards is the worst case: nothing of a pod may get into it.
in_ns node1 sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
for to in "${targets[@]}"; do
  ping_fails client "$to" || fail "the pod reaches $to with nobody to check its packets"
done
for ns in node2 outside; do
  ping_ok "$ns" 192.0.2.1
  ping_ok "$ns" 2001:db8::1
done
tcp_clean outside node1 192.0.2.1 $((4 << 20))

start_keeper node1
start_dataplane node1
start_agent node1
wait_ready node1
for to in "${targets[@]}"; do within 5 "the pod reaches $to again" ping_ok client "$to"; done
