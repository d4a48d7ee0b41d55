#!/usr/bin/env bash
# When policies change: connections they forbid later end at both ends, a broken file changes nothing.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_reach.sh"

two_nodes
five_pods
ALL=(TCP/80 TCP/81 UDP/80 SCTP/80)
server=$(ip4 a-server)

# A connection that a policy forbids later ends at once, at both ends.
namespace_only() {
  policy server '{"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"from": [{"podSelector": {}}]}]}'
  reach_becomes 'the namespace only' '{"a/friend": {"a/server": "...."}, "a/far": {"a/server": "...."},
    "b/stranger": {"a/server": "xxxx"}}' 4 "${ALL[@]}"
}
namespace_only
for from in a-friend a-far; do
  bg a-server iperf-server iperf3 -s -1 -p 5201
  within 5 'iperf3 in a-server' _listens a-server t 5201
  bg "$from" "iperf-$from" iperf3 -c "$server" -p 5201 -t 30
  client=$!
  sleep 1.5
  policy server '{"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]}'
  started=$(now_ms)
  wait $client && fail "iperf3 from $from goes on though a policy forbids it"
  took=$(($(now_ms) - started))
  say "$from is reset $took ms after the policy changed: $(tail -1 "$LOGS/iperf-$from.log")"
  expect "milliseconds until $from is reset" "$took" -lt 2000
  within 5 'the server is reset too' eval '! pgrep -f "iperf3 -s -1 -p 520[1]"'
  namespace_only
done

# A broken file changes nothing and is reported.
echo 'kind: [' >"$W/broken" && mv "$W/broken" "$MANIFESTS/policy-server.yaml"
within 5 'the broken file is reported' eval \
  '{ weft_on node1 status || true; } | grep -q "policy-server.yaml:1"'
reach_becomes 'a broken file' '{"a/friend": {"a/server": "...."}, "b/stranger": {"a/server": "xxxx"}}' 4 "${ALL[@]}"
