#!/usr/bin/env bash
# 300 generated sets of policies of all kinds (NetworkPolicy, ClusterNetworkPolicy, SecurityGroupPolicy), namespaces'
# and pods' labels with them, on nine pods of two nodes: real TCP, UDP and SCTP packets get where an evaluator says that
# reads the objects as the API's documentation does, and nowhere else. IPv4 and IPv6 in turns.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_reach.sh"

SETS=${SETS:-300}
TRAFFIC=(TCP/80 UDP/53 SCTP/443)

# The blocks of the generated policies end among these addresses.
EXAMPLE=$W/example
mkdir "$EXAMPLE"
sed -e 's/10.244.1.0.24/10.0.0.0\/28/; s/10.244.2.0.24/10.0.0.16\/28/' \
  -e 's/fd00:10:244:1::.64/fd00::\/124/; s/fd00:10:244:2::.64/fd00::10\/124/' \
  -e 's/podCIDR: 10.244.1.0.24/podCIDR: 10.0.0.0\/28/; s/podCIDR: 10.244.2.0.24/podCIDR: 10.0.0.16\/28/' \
  "$WEFT_ROOT/deploy/examples/two-nodes/nodes.yaml" >"$EXAMPLE/nodes.yaml"

two_nodes
for pod in shop/a shop/b bank/c bank/d lab/e; do policy_pod node1 $pod app=a; done
for pod in shop/f bank/g lab/h lab/i; do policy_pod node2 $pod app=a; done
reach_start "${TRAFFIC[@]#*/}"

args=(--sets "$SETS" --first "${FIRST:-0}")
for what in "${TRAFFIC[@]}"; do args+=(--traffic "$what"); done
for pod in "${!POD_NODE[@]}"; do args+=(--pod "$pod=$(addresses_of "$pod" | paste -sd,)"); done
weft-bench policy-sets "${args[@]}" >"$W/sets"

tried=0
rm "$MANIFESTS"/pod-*.yaml
while read -r one; do
  number=$(jq .number <<<"$one")
  family=$((number % 2 ? 6 : 4))
  jq -c .manifest <<<"$one" | manifest sets.yaml
  reach_becomes "set $number, IPv$family" "$(jq -c ".expected[\"$family\"]" <<<"$one")" $family "${TRAFFIC[@]}"
  tried=$((tried + 1))
done <"$W/sets"
expect 'sets tried' $tried -eq "$SETS"
letters=$(jq -r '.expected[][][]' "$W/sets" | tr -d '\n-')
allowed=$(tr -cd . <<<"$letters" | wc -c)
say "$tried sets, $((100 * allowed / ${#letters})) % of ${#letters} verdicts allow, no mismatch"
