#!/usr/bin/env bash
# SCTP by a cluster IP, over both families, from a pod and from the node itself, to pods of the same node and of
# the other: INITs arrive with a right checksum and answers come back from the cluster IP. No kernel with SCTP is
# needed: the ends use raw sockets.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_service.sh"

two_nodes
pod node1 shop/client
pod node1 shop/near
pod node2 shop/far
last=29
for name in near far; do
  for address in "$(ip4 $name)" "$(ip6 $name)"; do
    bg $name "sctp-$name-${address//:/_}" weft-bench sctp server --listen "$(at "$address" 8080)"
  done
  last=$((last + 1))
  slices $name $name
  sed -i 's/protocol: TCP/protocol: SCTP/' "$MANIFESTS/slices-$name.yaml"
  service $name 10.96.0.$last fd00:10:96::$last | sed 's/{ name: http,/{ name: http, protocol: SCTP,/' | manifest "service-$name.yaml"
done

answered() { # NS ADDRESS [COUNT]
  in_ns "$1" weft-bench sctp client --to "$(at "$2" 80)" --count "${3:-50}" | jq .answered
}
first() { [[ $(answered client "$1" 1) == 1 ]]; }

for address in 10.96.0.30 10.96.0.31 fd00:10:96::30 fd00:10:96::31; do
  within 10 "$address answers" first "$address"
  for from in client node1; do
    expect "associations from $from answered by $address" "$(answered $from $address)" -eq 50
  done
done
known=$(weft --run-dir "$W/node1/run" flow list --protocol sctp -o json | jq '.flows | length')
expect 'associations node1 knows' "$known" -ge 200
say "50 associations each from a pod and a node by 4 cluster IPs, $known known"
