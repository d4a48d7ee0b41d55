#!/usr/bin/env bash
# Never unfiltered: a pod is isolated from its first packet on, and policies hold while the agent is
# gone and the dataplane is killed.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_reach.sh"

two_nodes
five_pods
server=$(ip4 a-server)
policy server '{"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]}'
reach_becomes 'isolated' '{"b/stranger": {"a/server": "x"}, "a/server": {"b/stranger": "."}}' 4 UDP/80

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
