#!/usr/bin/env bash
# TCP and UDP throughput between pods of one node and of two, both families, with iperf3; and bytes
# that must arrive unchanged.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

# Well below what any machine here forwards: then nothing is lost, unless the machine itself stands still for longer
# than a receiver's buffer lasts. Virtual ones do; not four times in a row.
udp_without_loss() { # SERVER ADDRESS
  local try lost
  for try in 1 2 3 4; do
    iperf client "$2" 2 -u -b 20M -l 1200 >/dev/null
    lost=$(jq '.end.sum.lost_percent' "$LOGS/iperf.json")
    jq -e '.end.sum.lost_percent < 0.1' "$LOGS/iperf.json" >/dev/null && return
    say "UDP to $1 loses $lost % in try $try"
  done
  fail "UDP to $1 loses packets every time"
}

two_nodes
pod node1 shop/web
pod node1 shop/client
pod node2 shop/db
iperf_server web
iperf_server db

for family in ip4 ip6; do
  for server in web db; do
    to=$($family "$server")
    say "client to $server ($to):" \
      "TCP $(iperf client "$to" 2)," \
      "8 streams $(iperf client "$to" 2 -P 8)," \
      "back $(iperf client "$to" 2 -R) Gb/s"
    udp_without_loss "$server" "$to"
    tcp_clean client "$server" "$to" $((32 << 20))
    tcp_clean "$server" client "$($family client)" $((32 << 20))
  done
done

# The node's own processes speak to pods of both nodes.
for family in ip4 ip6; do
  tcp_clean node1 web "$($family web)" $((8 << 20))
  tcp_clean node1 db "$($family db)" $((8 << 20))
done
tcp_clean client outside "$OUT4" $((8 << 20))
tcp_clean client outside "$OUT6" $((8 << 20))
