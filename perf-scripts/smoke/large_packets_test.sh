#!/usr/bin/env bash
# TCP of a pod makes packets of 64 KiB of payload for a pod of its node, a header more than an IPv4 packet may have. With
# a shortcut they go whole, and acknowledgements to the core that sent them; without one (a capture runs) they are cut
# before they leave the pod. To others, and from a container in the pod, packets stay smaller. Contents arrive whole.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_shortcut.sh"

LARGE=65535 # bytes that the header of an IPv4 packet can say

# sends POD ADDRESS [FROM]: how many of 2,000 frames are larger that POD sends to ADDRESS while iperf3 runs in it, or in
# namespace FROM behind it.
sends() {
  local dump=$LOGS/$1-${2//:/_}${3:+-$3}
  in_ns "$1" timeout 20 tcpdump -nn -e -s 100 -Q out -i eth0 -c 2000 ip or ip6 >"$dump.txt" 2>"$dump.log" &
  within 5 'tcpdump listens' grep -q listening "$dump.log"
  iperf "${3:-$1}" "$2" 2 -Z -C cubic >/dev/null
  wait $! || fail "fewer than 2,000 frames from $1 to $2 in time: $(cat "$dump.log")"
  awk -v large=$((LARGE + 14)) '{ sub(/.*length /, ""); sub(/:.*/, "") } $0 + 0 > large { n++ } END { print n + 0 }' \
    <(sed 's/: .*//' "$dump.txt")
}

# Packets one core handed to another (`received_rps`, softnet_seq_show, net/core/net-procfs.c).
handed_over() {
  local fields packets=0
  while read -ra fields; do packets=$((packets + 16#${fields[9]})); done </proc/net/softnet_stat
  echo $packets
}

two_nodes
pod node1 shop/near
pod node1 shop/client
pod node2 shop/far
for server in near far outside; do iperf_server "$server"; done
before=$(handed_over)
large=$(sends client "$(ip4 near)")
say "with a shortcut $large of 2,000 frames are larger; $(($(handed_over) - before)) packets went to another core"
(($(nproc) == 1)) || expect 'packets that went to another core' $(($(handed_over) - before)) -gt 100
expect 'large frames with a shortcut' "$large" -gt 1000
for to in "$(ip4 far)" "$OUT4" "$(ip6 near)"; do expect "large frames to $to" "$(sends client "$to")" -eq 0; done

namespace inner
wire inner eth0 client docker0
address inner eth0 172.17.0.2/16
address client docker0 172.17.0.1/16
ip -n inner route add default via 172.17.0.1
in_ns client sysctl -qw net.ipv4.ip_forward=1
in_ns client nft 'add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; };
  add rule ip nat out oifname eth0 masquerade'
for to in near far; do expect "large frames from a container to $to" "$(sends client "$(ip4 $to)" inner)" -eq 0; done

bg node1 capture weft --run-dir "$W/node1/run" capture --snaplen 64 -w "$LOGS/capture.pcapng"
capture=$!
within 5 'no shortcut beside a capture' no_shortcut node1
before=$(seen node1)
expect 'large frames without a shortcut' "$(sends client "$(ip4 near)")" -eq 0
expect 'packets by the pipeline' $(($(seen node1) - before)) -gt 1000
tcp_clean client near "$(ip4 near)" 50000000
finish $capture INT
tcp_clean client near "$(ip4 near)" 50000000
