#!/usr/bin/env bash
# Nodes whose uplinks are virtual wires: streams between them drop nothing there, since the sender's end has a queue that
# waits, and a thread receives at the other. All that is gone with the keeper.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

queue() { in_ns "$1" tc qdisc show dev u0; }
no_queue() { queue "$1" | grep -q noqueue; }
dropped() { in_ns "$1" ip -s -j link show u0 | jq '.[0].stats64.tx.dropped'; }

if [[ $(printf '%s\n' 6.18 "$(uname -r)" | sort -V | head -1) != 6.18 ]]; then
  say 'a veth before Linux 6.18 does not wait: nothing to test'
  exit 0
fi
WIRE_OFFLOADS=off two_nodes
pod node1 shop/writer
pod node2 shop/files
for n in node1 node2; do
  [[ $(queue $n) == 'qdisc pfifo_fast 7766: root '* ]] || fail "$n has no queue: $(queue $n)"
done
iperf_server files
say "eight streams: $(iperf writer "$(ip4 files)" 3 -P 8) Gb/s"
jq -e '.end.sum_received.bytes > 1e7' "$LOGS/iperf.json" >/dev/null || fail 'little arrived'
for n in node1 node2; do
  expect "packets dropped on the wire at $n" "$(dropped $n)" -eq 0
done
for n in node1 node2; do
  kill "$(cat "$W/pids/$n.keeper")"
  within 10 "no queue at $n without a keeper" no_queue $n
done
