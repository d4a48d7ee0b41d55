#!/usr/bin/env bash
# An uplink with four queues: one socket each, and traffic of many flows arrives through all of them.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

WIRE_QUEUES=4 two_nodes
pod node1 shop/client
pod node2 shop/db

for node in node1 node2; do
  expect "queues of u0 on $node" "$(value $node '.ports[] | select(.kind == "uplink") | .queues')" -eq 4
done

# Whichever queue a flow lands in, it must get through: 32 source ports, one after another.
echo_server db "$(ip4 db)"
for ((flow = 0; flow < 32; flow++)); do
  probe_clean client "$(at "$(ip4 db)" 7)" 1000 0.05 --linger 0.3
done
for to in "$(ip4 db)" "$(ip6 db)"; do tcp_clean client db "$to" $((16 << 20)); done
iperf_server db
say "8 streams over four queues: $(iperf client "$(ip4 db)" 3 -P 8) Gb/s"
ping_ok node1 192.0.2.2
