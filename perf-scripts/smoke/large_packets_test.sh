#!/usr/bin/env bash
# TCP of a pod makes packets of more than 64 KiB for a pod of its node. With a shortcut they go whole; without one (a
# capture runs) they are cut before they leave the pod, and the pipeline takes the pieces. To another node, to the
# world, beside a wire of 9,000 bytes, and for what a container in the pod sends, they stay as they were. Contents
# arrive whole.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_shortcut.sh"

WHOLE=65549 # bytes of a frame whose IPv4 header can say its length

# sends POD ADDRESS OP BYTES [FROM]: so many bytes on average is what POD sends to ADDRESS in a packet while iperf3 runs
# in it, or in namespace FROM behind it. An interface counts a packet that is cut on its way by its pieces.
sends() {
  local before after mean
  before=$(_sent "$1")
  iperf "${5:-$1}" "$2" 2 -l 1M >/dev/null
  after=$(_sent "$1")
  mean=$(((${after#* } - ${before#* }) / (${after% *} - ${before% *})))
  say "from ${5:-$1} to $2: $mean bytes"
  expect "mean bytes of a packet from ${5:-$1} to $2" $mean "$3" "$4"
}
_sent() { ip -j -s -n "$1" link show dev eth0 | jq -r '.[0].stats64.tx | "\(.packets) \(.bytes)"'; }

two_nodes
pod node1 shop/near
pod node1 shop/client
pod node2 shop/far
for server in near far outside; do iperf_server "$server"; done
sends client "$(ip4 near)" -gt $WHOLE
for to in "$(ip4 far)" "$OUT4" "$(ip6 near)"; do sends client "$to" -le $WHOLE; done

namespace inner
wire inner eth0 client docker0
address inner eth0 172.17.0.2/16
address client docker0 172.17.0.1/16
ip -n inner route add default via 172.17.0.1
in_ns client sysctl -qw net.ipv4.ip_forward=1
in_ns client nft 'add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; };
  add rule ip nat out oifname eth0 masquerade'
for to in near far; do
  sends client "$(ip4 $to)" -gt 30000 inner
done

bg node1 capture weft --run-dir "$W/node1/run" capture --snaplen 64 -w "$LOGS/capture.pcapng"
capture=$!
within 5 'no shortcut beside a capture' no_shortcut node1
before=$(seen node1)
sends client "$(ip4 near)" -le $WHOLE
expect 'packets by the pipeline' $(($(seen node1) - before)) -gt 1000
tcp_clean client near "$(ip4 near)" 50000000
finish $capture INT
tcp_clean client near "$(ip4 near)" 50000000

for node in node1 node2; do ip -n $node link set dev u0 mtu 9000; done
pod node1 shop/jumbo
sends jumbo "$(ip4 near)" -le $WHOLE
