#!/usr/bin/env bash
# Two nodes that reach each other over IPv6 only: both families of the pods ride that tunnel, whose
# overhead is 70 bytes and whose outer UDP checksum must not be zero.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

middle_is_wired() { bg middle flip weft-bench flip --a a --b b; }

two_nodes ipv6
pod node1 shop/client
pod node2 shop/db
expect 'tunnel endpoint of node2' "$(value node1 '.remotes[0].vtep')" = 2001:db8::2

# On the nodes nobody can look: neither XDP nor AF_XDP shows its packets to tcpdump.
bg middle wire tcpdump -i a -nn -w "$LOGS/wire.pcap" 'ip6 and udp port 4789'
CAPTURE=$!
within 5 'tcpdump captures' grep -q 'listening on' "$LOGS/wire.log"
for family in ip4 ip6; do
  to=$($family db)
  ping_ok client "$to"
  ping_ok client "$to" -M do -s $((1430 - 48))
  tcp_clean client db "$to" $((8 << 20))
  tcp_clean node1 db "$to" $((1 << 20))
  echo_server db "$to"
  probe_clean client "$(at "$to" 7)" 500 1 --payload 8000
  kill $!
  wait $! 2>/dev/null || true
done
finish $CAPTURE TERM
expect 'tunnel packets on the wire' "$(frames "$LOGS/wire.pcap" 'udp.dstport == 4789')" -gt 1000
expect 'outer checksums that are wrong or zero' \
  "$(frames "$LOGS/wire.pcap" 'udp.checksum.status == 0 or udp.checksum == 0')" -eq 0
