#!/usr/bin/env bash
# IPv4 and IPv6: pods of one node, pods of two, pod and node both ways, pod to a remote node, and a
# world outside that knows no pod address.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

two_nodes lan
pod node1 shop/web
pod node1 shop/client
pod node2 shop/db

for family in ip4 ip6; do
  web=$($family web) client=$($family client) db=$($family db)
  node=$([[ $family == ip4 ]] && echo 192.0.2. || echo 2001:db8::)
  outside=$([[ $family == ip4 ]] && echo "$OUT4" || echo "$OUT6")

  ping_ok client "$web"               # same node
  ping_ok client "$db"                # across nodes, both directions
  ping_ok db "$client"
  ping_ok client "${node}1"           # pod to its own node
  ping_ok client "${node}2"           # pod to the other node
  ping_ok node1 "$client"             # node to its own pod
  ping_ok node1 "$db"                 # node to a remote pod
  ping_ok client "$outside"           # masqueraded: nobody there could answer a pod address
  ping_ok db "$outside"
  ping_ok client "$web" -s 9000       # larger than the path MTU: fragments, also on one node
  ping_ok client "$db" -s 9000

  # An address of the pod range nobody has is refused, not passed to the kernel.
  nobody=${db%[.:]*}$([[ $family == ip4 ]] && echo .250 || echo :fffe)
  ping_fails client "$nobody" || fail "an address nobody has answers: $nobody"
done
expect 'drops for want of an endpoint' "$(drops node2 no-endpoint)" -gt 0
