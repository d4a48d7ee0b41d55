#!/usr/bin/env bash
# What else takes a shortcut past the dataplane: TCP and UDP to a cluster IP on the node, whose addresses change
# on the way, and with the node's own processes. Contents arrive whole, and what a pod sends that way on its own
# is dropped.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_service.sh"

by_shortcut() { value node1 '.shortcuts[] | select(.name == "packets") | .count'; }
seen() { value node1 '.stages[] | select(.name == "parse") | .count'; }

# mostly WHAT COMMAND...: runs it; its packets go by shortcuts.
mostly() {
  local what=$1 shortcut pipeline
  shift
  shortcut=$(by_shortcut)
  pipeline=$(seen)
  "$@" || fail "$what"
  shortcut=$(($(by_shortcut) - shortcut))
  pipeline=$(($(seen) - pipeline))
  say "$what: $shortcut packets by the shortcut, $pipeline by the pipeline"
  expect "packets by the shortcut, $what" "$shortcut" -gt "$pipeline"
}

# whole NS ADDRESS PORT: a file from a web server, a few times, so that connections are long enough.
whole() {
  local sum
  sum=$(sha256sum <"$W/www/web/large")
  [[ $(get "$1" "$2" /large "$3" | sha256sum) == "$sum" ]]
}

two_nodes
pod node1 shop/web
pod node1 shop/client
slices web web
service web 10.96.0.10 fd00:10:96::10 | sed '/ports:/d' | manifest service-web.yaml
cat >>"$MANIFESTS/service-web.yaml" <<'YAML'
  ports:
    - { name: http, port: 80, targetPort: 8080 }
    - { name: who, port: 90, targetPort: 9090 }
    - { name: who-udp, protocol: UDP, port: 90, targetPort: 9090 }
YAML
web_server web
for address in 10.96.0.10 fd00:10:96::10; do
  within 5 "the service at $address" get client "$address" /
  mostly "TCP from a pod to $address" whole client "$address" 80
  mostly "TCP from the node to $address" whole node1 "$address" 80
  iperf_server web 9090
  server=$!
  mostly "UDP from a pod to $address" in_ns client iperf3 -c "$address" -p 90 -u -b 100M -t 2
  finish $server TERM
done
mostly 'TCP from the node to a pod' whole node1 "$(ip4 web)" 8080

# A pod that redirects to its own interface by itself passes generic XDP, and gets no further.
in_ns client tc qdisc add dev eth0 clsact
in_ns client tc filter add dev eth0 egress protocol ip flower ip_proto icmp action mirred egress redirect dev eth0
! in_ns client ping -c 3 -W 1 "$(ip4 web)" >/dev/null || fail 'a ping that passes XDP arrives'
in_ns client ping -6 -c 3 -i 0.2 -W 1 "$(ip6 web)" >/dev/null || fail 'other packets of that pod do not arrive'
