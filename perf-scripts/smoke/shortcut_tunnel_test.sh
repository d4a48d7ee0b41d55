#!/usr/bin/env bash
# Connections between pods of two nodes take shortcuts into the tunnel and out of it, TCP and UDP, to a service
# with a backend on the other node too. Contents arrive whole; a stream survives both dataplanes' ends, and that the pod
# no longer takes what shortcuts bring (GRO off); a policy ends it at once.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_service.sh"
. "$WEFT_ROOT/perf-scripts/_reach.sh"
. "$WEFT_ROOT/perf-scripts/_shortcut.sh"

whole() { [[ $(get reader "$1" /large "$2" | sha256sum) == $(sha256sum <"$W/www/files/large") ]]; }

WIRE_OFFLOADS=off two_nodes
pod node1 shop/reader
pod node2 shop/files
slices files files
{
  service files 10.96.0.10 fd00:10:96::10 | sed '/ports:/d'
  echo '  ports: [{ name: http, port: 80, targetPort: 8080 }]'
} | manifest service-files.yaml
web_server files
for address in "$(ip4 files) 8080" "$(ip6 files) 8080" '10.96.0.10 80' 'fd00:10:96::10 80'; do
  within 5 "the server at $address" get reader "${address% *}" / "${address#* }"
  # shellcheck disable=SC2086
  mostly 'node1 node2' "TCP to $address" whole $address
done
iperf_server files 9090
server=$!
mostly 'node1 node2' UDP in_ns reader iperf3 -c "$(ip4 files)" -p 9090 -u -l 1200 -b 50M -t 2
finish $server TERM

iperf_server files 9090
bg reader stream iperf3 -c "$(ip4 files)" -p 9090 -t 60
client=$!
for n in node1 node2; do
  within 5 "a shortcut at $n" on_shortcut $n
  restarts=$(value $n .restarts)
  kill9 $n dataplane
  start_dataplane $n
  within 5 "the dataplane of $n is back" committed $n $((restarts + 1))
  within 5 "a shortcut at $n after the restart" on_shortcut $n
done
kill -STOP "$(cat "$W/pids/node2.dataplane")" # what it hears then is true no longer
in_ns files ethtool -K eth0 gro off
in_ns files ethtool -K eth0 gro on
kill -CONT "$(cat "$W/pids/node2.dataplane")"
sleep 0.5
within 5 'a shortcut after GRO was off for a moment' on_shortcut node2
in_ns files ethtool -K eth0 gro off
within 2 'no shortcut into a pod without GRO' no_shortcut node2
before=$(seen node2)
whole "$(ip4 files)" 8080 || fail 'no contents without GRO'
sleep 0.5
expect 'packets to a pod without GRO by the pipeline' $(($(seen node2) - before)) -gt 1000
kill -0 $client || fail "the stream ended: $(cat "$LOGS/stream.out")"
policy files '{"podSelector": {"matchLabels": {"app": "files"}}, "policyTypes": ["Ingress"]}' shop
started=$(now_ms)
wait $client && fail 'the stream goes on though a policy forbids it'
expect 'milliseconds until the stream is reset' $(($(now_ms) - started)) -lt 2000
