#!/usr/bin/env bash
# How long a CNI ADD takes, weft beside Debian's `bridge` + `host-local`, both dual stack, taking
# turns. What is timed: the plugin's process from start to end, and with it one IPv4 and one IPv6
# ping to another pod, sent once each and answered within 50 ms.
#   COUNT=50 run/cni-add.sh
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

COUNT=${COUNT:-50}
PEER=/usr/lib/cni
CONFIG_PEER=$(jq -nc --arg dir "$W/host-local" '{cniVersion: "1.0.0", name: "peer", type: "bridge", bridge: "cni0",
  isGateway: true, ipam: {type: "host-local", dataDir: $dir,
  ranges: [[{subnet: "10.90.0.0/24"}], [{subnet: "fd00:90::/64"}]], routes: [{dst: "0.0.0.0/0"}, {dst: "::/0"}]}}')

two_nodes
namespace peer
for ((i = 0; i <= COUNT; i++)); do
  pod_manifest node1 "shop/w$i"
  ip netns add "w$i"
  ip netns add "p$i"
done | manifest many.yaml

# add KIND NUMBER: times go to $W/KIND.add and $W/KIND.all, in microseconds. Runs in the node.
add() {
  local kind=$1 name=$1$2 begin added asked answered to4 to6 plugin config
  if [[ $kind == w ]]; then plugin=$WEFT_BIN_DIR/weft-cni config=$CONFIG; else plugin=$PEER/bridge config=$CONFIG_PEER; fi
  export CNI_COMMAND=ADD CNI_CONTAINERID=$name CNI_NETNS=/run/netns/$name CNI_IFNAME=eth0 CNI_PATH=$PEER \
    CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=$name"
  begin=${EPOCHREALTIME/./}
  "$plugin" <<<"$config" >"$W/pods/$name.json" || { cat "$W/pods/$name.json"; return 1; }
  added=${EPOCHREALTIME/./}
  (($2 > 0)) || return 0
  to4=$(ip4 "${kind}0") to6=$(ip6 "${kind}0")
  asked=${EPOCHREALTIME/./}
  nsenter --net="/run/netns/$name" ping -q -c 1 -W 0.05 "$to4" >/dev/null || { echo "$name: no IPv4 answer"; return 1; }
  nsenter --net="/run/netns/$name" ping -q -c 1 -W 0.05 "$to6" >/dev/null || { echo "$name: no IPv6 answer"; return 1; }
  answered=${EPOCHREALTIME/./}
  echo $((added - begin)) >>"$W/$kind.add"
  echo $((added - begin + answered - asked)) >>"$W/$kind.all"
}
export -f add ip4 ip6
export W PEER CONFIG_PEER COUNT
CONFIG=$(cni_config node1)
export CONFIG

for ((i = 0; i <= COUNT; i++)); do
  in_ns node1 bash -c "add w $i" || fail "weft, ADD $i"
  in_ns peer bash -c "add p $i" || fail "bridge + host-local, ADD $i"
done

line() { # LABEL FILE
  sort -n "$2" | awk -v label="$1" '{ v[NR] = $1 / 1000 }
    function at(q) { i = int(NR * q + 0.9999); return v[i < 1 ? 1 : i] }
    END { printf "| %s | %.1f | %.1f | %.1f | %.1f |\n", label, at(0.5), at(0.9), at(0.99), v[NR] }'
}
echo "| ms, $COUNT runs | p50 | p90 | p99 | max |"
echo '|---|---|---|---|---|'
line 'weft: ADD' "$W/w.add"
line 'bridge + host-local: ADD' "$W/p.add"
line 'weft: ADD and two pings' "$W/w.all"
line 'bridge + host-local: ADD and two pings' "$W/p.all"
