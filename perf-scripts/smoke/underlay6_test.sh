#!/usr/bin/env bash
# Two nodes that reach each other over IPv6 only: both families of the pods ride that tunnel, whose
# overhead is 70 bytes and whose outer UDP checksum must not be zero.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

two_nodes ipv6
pod node1 shop/client
pod node2 shop/db
expect 'tunnel endpoint of node2' "$(value node1 '.remotes[0].vtep')" = 2001:db8::2

bg node2 wire tcpdump -i u0 -nn -c 20 -w "$LOGS/wire.pcap" 'ip6 and udp port 4789'
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
wait $CAPTURE
# The uplink's program takes our packets off before tcpdump sees them; what node2 sends it does not.
count() { tshark -r "$LOGS/wire.pcap" -o udp.check_checksum:TRUE -Y "$1" 2>/dev/null | wc -l; }
expect 'outer checksums of zero' "$(count 'udp.port == 4789 and udp.checksum == 0')" -eq 0
