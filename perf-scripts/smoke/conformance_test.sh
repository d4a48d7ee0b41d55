#!/usr/bin/env bash
# 107 sets of NetworkPolicies whose verdicts an independent generator computed, with real TCP, UDP and
# SCTP packets between nine pods on two nodes; for every set, `weft policy explain` is asked about some
# of the connections.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_reach.sh"

TABLES=$WEFT_ROOT/control/model/tests/data/networkpolicy.json
EXPLAINED=${EXPLAINED:-4} # of each set; 10 are more than a thousand

two_nodes
rm "$MANIFESTS/pods.yaml"
for ns in x y z; do labelled_namespace "$ns" "ns=$ns"; done
for ns in x y z; do
  policy_pod node1 "$ns/a" pod=a
  policy_pod node2 "$ns/b" pod=b
done
policy_pod node1 x/c pod=c
policy_pod node2 y/c pod=c
policy_pod node2 z/c pod=c
reach_start

traffic=$(jq -r '.traffic[] | "\({"6": "TCP", "17": "UDP", "132": "SCTP"}[.[0] | tostring])/\(.[1])"' "$TABLES")
# The pods of the tables are 192.168.1.1 to .9; ours are in the nodes' prefixes. A block of the tables
# holds all of them, and so does the one that stands for it.
cases=$(jq -c '[.pods[][0]] as $pods | .cases[] |
  {name, v4_only: (.policies | tostring | contains("cidr")),
   policies: (.policies | tostring | gsub("192.168.1.0/24"; "10.244.0.0/16") | gsub("192.168.1.0/28"; "10.244.0.0/18")
     | fromjson),
   expected: (.expected | to_entries | map({($pods[.key]): (.value | split(" ") | to_entries
     | map({($pods[.key]): .value}) | add)}) | add
     | with_entries(.key as $from | .value |= del(.[$from])))}' "$TABLES")

number=0 asked=0
while read -r one; do
  number=$((number + 1))
  ((number >= ${FIRST:-1})) || continue
  what="set $number ($(jq -r .name <<<"$one"))"
  expected=$(jq -c .expected <<<"$one")
  # Some of the tables' policies leave out what they are.
  jq -r '.policies[] | "---", ({apiVersion: "networking.k8s.io/v1", kind: "NetworkPolicy"} + . | tojson)' <<<"$one" |
    manifest policies.yaml
  # shellcheck disable=SC2086
  reach_becomes "$what" "$expected" 4 $traffic
  if [[ $(jq .v4_only <<<"$one") == false && $((number % 4)) == 0 ]]; then
    # shellcheck disable=SC2086
    reach_becomes "$what, IPv6" "$expected" 6 $traffic
  fi
  while read -r from to letter is; do
    asked=$((asked + 1))
    expect "$what: what is explained of $from to $to, $letter" "$(explained "$from" "$to" "$letter")" = "$is"
  done < <(jq -r --argjson n "$number" --argjson count "$EXPLAINED" --arg traffic "$traffic" '
    ($traffic | split("\n")) as $t | [.expected | to_entries[] | .key as $from | .value | to_entries[] |
      .key as $to | .value | split("") | to_entries[] | "\($from) \($to) \($t[.key]) \(.value)"] as $all |
    range($count) | $all[($n * 89 + . * 41) % ($all | length)]' <<<"$one")
done <<<"$cases"
say "$number policy sets, $asked explained connections: no mismatch"
