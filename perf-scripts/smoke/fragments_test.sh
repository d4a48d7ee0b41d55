#!/usr/bin/env bash
# A 20 kB UDP datagram arrives in both families, on one node, across two, and from outside.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

two_nodes
pod node1 shop/web
pod node1 shop/client
pod node2 shop/db

for family in ip4 ip6; do
  for server in web db; do
    to=$($family "$server")
    echo_server "$server" "$to"
    probe_clean client "$(at "$to" 7)" 200 2 --payload 20000
    probe_clean node1 "$(at "$to" 7)" 200 1 --payload 20000
    kill $!
  done
  outside=$([[ $family == ip4 ]] && echo "$OUT4" || echo "$OUT6")
  echo_server outside "$outside"
  probe client "$(at "$outside" 7)" 10 1 --payload 20000 >/dev/null # `outside` has to learn the path MTU
  probe_clean client "$(at "$outside" 7)" 200 1 --payload 20000
  kill $!
done
for node in node1 node2; do
  expect "frames $node still holds" "$(value $node .frames.held)" -eq 0
done
