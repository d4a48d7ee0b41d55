#!/usr/bin/env bash
# What else takes a shortcut past the dataplane: TCP and UDP to a cluster IP on the node, whose addresses change
# on the way, and both with the node's own processes. Contents arrive whole.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_service.sh"
. "$WEFT_ROOT/perf-scripts/_shortcut.sh"

# whole NS ADDRESS PORT: a large file from the web server, byte by byte.
whole() {
  local sum
  sum=$(sha256sum <"$W/www/files/large")
  [[ $(get "$1" "$2" /large "$3" | sha256sum) == "$sum" ]]
}

two_nodes
pod node1 shop/files
pod node1 shop/reader
slices files files
{
  service files 10.96.0.10 fd00:10:96::10 | sed '/ports:/d'
  echo '  ports: [{ name: http, port: 80, targetPort: 8080 }, { name: who, port: 90, targetPort: 9090 },'
  echo '    { name: who-udp, protocol: UDP, port: 90, targetPort: 9090 }]'
} | manifest service-files.yaml
web_server files
for address in 10.96.0.10 fd00:10:96::10; do
  within 5 "the service at $address" get reader "$address" /
  mostly node1 "TCP from a pod to $address" whole reader "$address" 80
  mostly node1 "TCP from the node to $address" whole node1 "$address" 80
  iperf_server files 9090
  server=$!
  mostly node1 "UDP from a pod to $address" in_ns reader iperf3 -c "$address" -p 90 -u -l 1200 -b 50M -t 2
  finish $server TERM
done
mostly node1 'TCP from the node to a pod' whole node1 "$(ip4 files)" 8080
