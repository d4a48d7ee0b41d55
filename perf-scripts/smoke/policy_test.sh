#!/usr/bin/env bash
# NetworkPolicy between real pods, on one node and across two: who is let in, replies, the node's own
# probes, what happens to connections a policy forbids later, a pod's first packet, broken files, and
# both daemons going away.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_reach.sh"

two_nodes
labelled_namespace a team=blue
labelled_namespace b team=red
policy_pod node1 a/server app=server
policy_pod node1 a/friend app=friend
policy_pod node1 b/stranger app=stranger
policy_pod node2 a/far app=friend
policy_pod node2 b/faraway app=stranger
reach_start
ALL=(TCP/80 TCP/81 UDP/80 SCTP/80)

policy() { # NAME SPEC(json) [NAMESPACE]
  jq -n --arg name "$1" --arg ns "${3:-a}" --argjson spec "$2" '{apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy", metadata: {namespace: $ns, name: $name}, spec: $spec}' | manifest "policy-$1.yaml"
}
no_policy() { rm -f "$MANIFESTS/policy-$1.yaml"; }
weft_on() { local node=$1; shift; weft --run-dir "$W/$node/run" "$@"; }

open='{"a/friend": {"a/server": "...."}, "b/stranger": {"a/server": "...."},
  "a/far": {"a/server": "...."}, "b/faraway": {"a/server": "...."}, "a/server": {"a/far": "...."}}'
friends='{"a/friend": {"a/server": ".XXX"}, "a/far": {"a/server": ".XXX"},
  "b/stranger": {"a/server": "XXXX", "a/friend": "...."}, "b/faraway": {"a/server": "XXXX"},
  "a/server": {"a/friend": "....", "b/stranger": "....", "a/far": "....", "b/faraway": "...."}}'
for family in 4 6; do reach_becomes 'without policies' "$open" $family "${ALL[@]}"; done

policy server '{"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [
  {"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}], "ports": [{"port": "serve-80-tcp"}]}]}'
for family in 4 6; do reach_becomes 'friends on TCP 80' "$friends" $family "${ALL[@]}"; done

server=$(ip4 a-server)
ping_ok node1 "$server"        # kubelet probes
ping_ok node1 "$(ip6 a-server)"
ping_fails node2 "$server" || fail 'a foreign node is let in'
ping_ok a-server "$(ip4 b-stranger)" # replies come back
ping_fails b-stranger "$server" || fail 'a stranger pings'

explained=$(weft_on node1 policy explain b/stranger a/server --port 80/tcp --output json) && fail 'explain says allowed'
expect 'the deciding object' "$(jq -r .ingress.origin.object <<<"$explained")" = 'NetworkPolicy a/server'
weft_on node1 policy explain a/friend a/server --port 80/tcp | grep -q 'ingress\[0\]' ||
  fail "explain does not name the rule: $(weft_on node1 policy explain a/friend a/server --port 80/tcp)"

# Egress: the stranger may only speak UDP, to namespace a.
policy stranger '{"podSelector": {}, "policyTypes": ["Egress"], "egress": [
  {"to": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}], "ports": [{"protocol": "UDP", "port": 80}]}]}' b
reach_becomes 'egress by namespace' '{"b/stranger": {"a/friend": "XX.X", "a/far": "XX.X", "b/faraway": "XXXX"},
  "b/faraway": {"a/friend": "XX.X"}, "a/friend": {"b/stranger": "...."}}' 4 "${ALL[@]}"
no_policy stranger

# A connection that a policy forbids later ends at once, at both ends.
policy server '{"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"from": [{"podSelector": {}}]}]}'
reach_becomes 'everybody of the namespace' '{"a/friend": {"a/server": "...."}, "a/far": {"a/server": "...."}}' 4 "${ALL[@]}"
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
  policy server '{"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"from": [{"podSelector": {}}]}]}'
  reach_becomes 'allowed again' '{"a/friend": {"a/server": "...."}, "a/far": {"a/server": "...."}}' 4 "${ALL[@]}"
done

# A broken file changes nothing and is reported.
echo 'kind: [' >"$W/broken" && mv "$W/broken" "$MANIFESTS/policy-server.yaml"
within 5 'the broken file is reported' eval \
  '{ weft_on node1 status || true; } | grep -q "policy-server.yaml:1"'
reach_becomes 'a broken file' '{"a/friend": {"a/server": "...."}, "b/stranger": {"a/server": "XXXX"}}' 4 "${ALL[@]}"

# A pod is isolated from its first packet on: its address is flooded before it is there.
policy late '{"podSelector": {"matchLabels": {"app": "late"}}, "policyTypes": ["Ingress"]}'
last=${server%.*}
next=$(for pod in a-server a-friend b-stranger; do ip4 $pod; done | sort -t. -k4n | tail -1)
next=$last.$((${next##*.} + 1))
bg b-stranger early weft-bench probe client --to "$(at "$next" 7)" --rate 2000 --seconds 30 --linger 0
early=$!
sleep 0.3
policy_pod node1 a/late app=late
expect 'the next address' "$(ip4 a-late)" = "$next"
sleep 0.5
finish $early INT
expect 'datagrams that reached a pod nobody may reach' \
  "$(in_ns a-late nstat -asz UdpNoPorts UdpInDatagrams | awk '/^Udp/ { sum += $2 } END { print sum }')" -eq 0

# Without the agent and through a restart of the dataplane the policies hold.
kill9 node1 agent
bg a-server listener weft-bench probe server --listen "$(at "$server" 7)"
listener=$!
bg b-stranger knock weft-bench probe client --to "$(at "$server" 7)" --rate 1000 --seconds 30 --linger 0
knock=$!
for ((i = 0; i < 3; i++)); do
  sleep 0.3
  kill9 node1 dataplane
  start_dataplane node1
  within 5 'the dataplane serves again' eval 'status node1 | jq -e ".generation > 0"'
done
sleep 0.3
finish $knock INT
finish $listener INT
expect 'datagrams that came through meanwhile' "$(jq .received "$LOGS/listener.out")" -eq 0
expect 'datagrams sent meanwhile' "$(jq .sent "$LOGS/knock.out")" -gt 1000
