#!/usr/bin/env bash
# A pod is attached only once its port is live: the moment an ADD returns, one IPv4 and one IPv6
# ping, never repeated, are answered within 50 ms; on the same node and by the other one.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

two_nodes
pod node1 shop/web
pod node2 shop/db
for ((i = 1; i <= 20; i++)); do
  pod node1 "shop/new$i"
  for to in "$(ip4 web)" "$(ip6 web)" "$(ip4 db)" "$(ip6 db)"; do
    in_ns "new$i" ping -q -c 1 -W 0.05 "$to" >/dev/null || fail "new$i: $to does not answer the first ping"
  done
done
