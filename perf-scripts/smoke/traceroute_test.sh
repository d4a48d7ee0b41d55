#!/usr/bin/env bash
# A traceroute through both nodes shows a hop per node: the address of its weft0.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

two_nodes
pod node1 shop/client
pod node1 shop/web
pod node2 shop/db

weft0_of() {
  ip -n "$1" -json addr show dev weft0 |
    jq -r --arg family "$2" '[.[].addr_info[]? | select(.family == $family and .scope == "global")][0].local'
}

for family in inet inet6; do
  if [[ $family == inet ]]; then flag=-4 ip=ip4; else flag=-6 ip=ip6; fi
  for method in '' -I; do
    # shellcheck disable=SC2086
    hops=$(in_ns client traceroute $flag $method -n -q 1 -w 2 -m 6 "$($ip db)" |
      awk 'NR > 1 { print $2 }' | tr '\n' ' ')
    expect "hops to db ($family ${method:-UDP})" "$hops" = \
      "$(weft0_of node1 $family) $(weft0_of node2 $family) $($ip db) "
  done
  hops=$(in_ns client traceroute $flag -n -q 1 -w 2 -m 6 "$($ip web)" | awk 'NR > 1 { print $2 }' | tr '\n' ' ')
  expect "hops on one node ($family)" "$hops" = "$(weft0_of node1 $family) $($ip web) "
done
