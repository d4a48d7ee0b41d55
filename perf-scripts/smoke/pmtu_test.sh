#!/usr/bin/env bash
# Path MTU: pods know the tunnel's from the start; when the wire shrinks, a packet that no longer
# fits is answered with "fragmentation needed" / "packet too big", and TCP goes on.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

two_nodes
pod node1 shop/client
pod node2 shop/db

learned() { [[ $(in_ns client ip route get "$1" | grep -oE 'mtu [0-9]+' | tail -1) == "mtu $2" ]]; }
shrunk() { jq -e --argjson mtu "$1" 'all(.remotes[]; .mtu == $mtu)' <<<"$(status node1)"; }

# 1500 less 50 bytes of VXLAN over IPv4; less 28 and 48 of IP and ICMP headers.
ping_ok client "$(ip4 db)" -M do -s $((1450 - 28))
ping_ok client "$(ip6 db)" -M do -s $((1450 - 48))
in_ns client ping -c 1 -W 1 -M do -s $((1450 - 27)) "$(ip4 db)" >"$LOGS/big.out" 2>&1 &&
  fail 'a packet larger than the path passes unfragmented'
grep -q 'mtu=\?:\? \?1450' "$LOGS/big.out" || fail "the pod does not know the path: $(cat "$LOGS/big.out")"

tcp_clean client db "$(ip4 db)" $((4 << 20))
for node in node1 node2; do ip -n "$node" link set dev u0 mtu 1400; done
within 5 'the tunnel follows the wire' shrunk 1350

for family in ip4 ip6; do
  to=$($family db)
  in_ns client ping -c 2 -i 0.2 -W 1 -M do -s 1380 "$to" >"$LOGS/shrunk.out" 2>&1 || true
  learned "$to" 1350 || fail "no path MTU learned for $to: $(cat "$LOGS/shrunk.out"; in_ns client ip route get "$to")"
  ping_ok client "$to" -M do -s $((1350 - 48))
  tcp_clean client db "$to" $((4 << 20))
  echo_server db "$to"
  probe client "$(at "$to" 7)" 5 1 --payload 1400 >/dev/null # db, too, has to learn
  probe_clean client "$(at "$to" 7)" 100 1 --payload 1400 # fragments of what fits no longer
  kill $!
done
