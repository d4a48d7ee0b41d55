#!/usr/bin/env bash
# NetworkPolicy between real pods, on one node and across two: who is let in, replies, the node's own
# probes, egress, and what `weft` says about it.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_reach.sh"

two_nodes
five_pods
ALL=(TCP/80 TCP/81 UDP/80 SCTP/80)


open='{"a/friend": {"a/server": "...."}, "b/stranger": {"a/server": "...."},
  "a/far": {"a/server": "...."}, "b/faraway": {"a/server": "...."}, "a/server": {"a/far": "...."}}'
friends='{"a/friend": {"a/server": ".xxx"}, "a/far": {"a/server": ".xxx"},
  "b/stranger": {"a/server": "xxxx", "a/friend": "...."}, "b/faraway": {"a/server": "xxxx"},
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
reach_becomes 'egress by namespace' '{"b/stranger": {"a/friend": "xx.x", "a/far": "xx.x", "b/faraway": "xxxx"},
  "b/faraway": {"a/friend": "xx.x"}, "a/friend": {"b/stranger": "...."}}' 4 "${ALL[@]}"

# And what a packet would meet is what `weft trace` shows.
traced=$(weft_on node1 trace a/friend tcp - a/server:81 syn) && fail "trace lets a friend in at port 81: $traced"
grep -q 'NetworkPolicy a/server' <<<"$traced" || fail "trace does not name the policy: $traced"
weft_on node1 trace a/friend tcp - a/server:80 syn | grep -q 'ingress\[0\]' || fail 'trace of a friend'

# The log names pods and the deciding rule while it happens, and costs the workers nothing afterwards.
bg node1 log weft --run-dir "$W/node1/run" policy log --pod a/server --verdict denied --count 1 -o json
LOG=$!
sleep 0.7
ping_fails b-stranger "$server" || fail 'a stranger pings again'
wait $LOG || fail 'the log ends with an error'
line=$(grep '"event":"verdict"' "$LOGS/log.out") || fail "no verdict: $(cat "$LOGS/log.log")"
expect 'who was denied what by whom' "$(jq -r '[.source.pod.name, .destination.pod.name, .egress.origin.object] | join(" ")' <<<"$line")" = \
  'stranger server NetworkPolicy b/stranger'
