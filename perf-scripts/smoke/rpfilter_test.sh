#!/usr/bin/env bash
# Strict reverse-path filtering and a rule that drops INVALID, as hardened hosts and kube-proxy have
# them: processes of both nodes and pods of both nodes talk both ways, TCP and UDP.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

strict() {
  in_ns "$1" bash -c 'for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 >"$file"; done'
}

guard() {
  in_ns "$1" nft -f - <<'NFT'
table inet guard {
  chain input { type filter hook input priority 0; ct state invalid counter drop; }
  chain forward { type filter hook forward priority 0; ct state invalid counter drop; }
  chain output { type filter hook output priority 0; ct state invalid counter drop; }
}
NFT
}

two_nodes
pod node1 shop/client
pod node2 shop/db
for node in node1 node2; do
  strict "$node"
  guard "$node"
done

talk() { # FROM TO ADDRESS
  tcp_clean "$1" "$2" "$3" $((2 << 20))
  echo_server "$2" "$3"
  probe_clean "$1" "$(at "$3" 7)" 500 0.5
  kill $!
  wait $! 2>/dev/null || true
}

for family in ip4 ip6; do
  node=$([[ $family == ip4 ]] && echo 192.0.2. || echo 2001:db8::)
  talk node1 client "$($family client)"
  talk node1 db "$($family db)"
  talk node2 client "$($family client)"
  talk client node1 "${node}1"
  talk client node2 "${node}2"
  talk db node1 "${node}1"
  talk client db "$($family db)"
  talk client outside "$([[ $family == ip4 ]] && echo "$OUT4" || echo "$OUT6")"
done
