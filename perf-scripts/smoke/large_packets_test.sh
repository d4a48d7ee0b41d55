#!/usr/bin/env bash
# TCP of a pod makes packets of more than 64 KiB for a pod of its node. With a shortcut they go whole; without one (a
# capture runs) they are cut before they leave the pod, and the pipeline takes the pieces. To another node, to the
# world, and beside a wire of 9,000 bytes they stay as they were. Contents arrive whole.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_shortcut.sh"

# Mean bytes of what CLIENT sends while `iperf3 ARGS` runs.
sends() { # CLIENT ADDRESS [ARGS...]
  local before after
  before=$(_sent "$1")
  iperf "$1" "$2" 2 -l 1M "${@:3}" >/dev/null
  after=$(_sent "$1")
  echo $(((${after#* } - ${before#* }) / (${after% *} - ${before% *})))
}
_sent() { ip -j -s -n "$1" link show dev eth0 | jq -r '.[0].stats64.tx | "\(.packets) \(.bytes)"'; }
retransmitted() { jq .end.sum_sent.retransmits "$LOGS/iperf.json"; }

two_nodes
pod node1 shop/near
pod node1 shop/client
pod node2 shop/far
for server in near far outside; do iperf_server "$server"; done

bytes=$(sends client "$(ip4 near)")
say "with a shortcut: $bytes bytes, $(retransmitted) segments twice"
expect 'mean bytes of a packet with a shortcut' "$bytes" -gt 65536
for to in "$(ip4 far)" "$OUT4" "$(ip6 near)"; do
  bytes=$(sends client "$to")
  say "to $to: $bytes bytes"
  expect "mean bytes of a packet to $to" "$bytes" -le 65549
done

bg node1 capture weft --run-dir "$W/node1/run" capture --snaplen 64 -w "$LOGS/capture.pcapng"
capture=$!
within 5 'no shortcut beside a capture' no_shortcut node1
before=$(seen node1)
bytes=$(sends client "$(ip4 near)")
say "without a shortcut: $bytes bytes, $(retransmitted) segments twice, $(($(seen node1) - before)) packets in the pipeline"
# The interface counts pieces.
expect 'mean bytes of a piece' "$bytes" -le 65549
expect 'mean bytes of a piece' "$bytes" -gt 50000
expect 'packets by the pipeline' $(($(seen node1) - before)) -gt 1000
tcp_clean client near "$(ip4 near)" 50000000
finish $capture INT
tcp_clean client near "$(ip4 near)" 50000000

for node in node1 node2; do ip -n $node link set dev u0 mtu 9000; done
pod node1 shop/jumbo
bytes=$(sends jumbo "$(ip4 near)")
say "beside a wire of 9,000 bytes: $bytes bytes"
expect 'mean bytes of a packet beside a wire of 9,000 bytes' "$bytes" -le 65549
