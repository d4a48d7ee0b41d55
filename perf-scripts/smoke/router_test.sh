#!/usr/bin/env bash
# A pod that is a router: behind it, on a link of 1,500 bytes, is a namespace of its own, as in Docker in Docker or
# a VPN. What it downloads must come in segments that fit there, from pods of both nodes and from outside; what it
# uploads is larger than the tunnel takes, which it has to be told.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

LIMIT_SECONDS=30

two_nodes
pod node1 shop/far
pod node2 shop/near
pod node2 shop/router

namespace inner
wire router r0 inner i0 1500
address router r0 10.77.0.1/24 fd77::1/64
address inner i0 10.77.0.2/24 fd77::2/64
ip -n inner route add default via 10.77.0.1
ip -n inner -6 route add default via fd77::1
in_ns router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
in_ns router nft -f - <<NFT
table inet nat { chain out { type nat hook postrouting priority 100; oifname "eth0" masquerade; }; }
NFT

# load down|up NS SERVER ADDRESS MIB
load() {
  local how=$1 ns=$2 server=$3 to=$4 mib=$5 before after reverse=()
  [[ $how == up ]] || reverse=(-R)
  before=$(now_ms)
  in_ns "$ns" timeout "$LIMIT_SECONDS" iperf3 -J -c "$to" "${reverse[@]}" -n "${mib}M" >"$LOGS/load.json" 2>&1 ||
    fail "$ns loads $mib MiB $how, $server ($to), not within $LIMIT_SECONDS s: $(jq -c '.error // .end.sum_received' "$LOGS/load.json")"
  after=$(now_ms)
  say "$ns $how, $server ($to): $mib MiB in $((after - before)) ms," \
    "sent again $(jq '.end.sum_sent.retransmits' "$LOGS/load.json")"
}

for server in near far outside; do iperf_server "$server"; done
for family in ip4 ip6; do
  for server in near far; do
    to=$($family "$server")
    load down inner "$server" "$to" 100
    load up inner "$server" "$to" 100
    tcp_clean inner "$server" "$to" $((100 << 20))
  done
  [[ $family == ip4 ]] && out=$OUT4 || out=$OUT6
  load down inner outside "$out" 50
  # A pod itself, by the node's own link of 1,500 bytes.
  load down near outside "$out" 50
  tcp_clean near outside "$out" $((50 << 20))
done
