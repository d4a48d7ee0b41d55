#!/usr/bin/env bash
# What policies cost, beside the kernel's own filters: new connections per second (crr) and throughput (dts) between
# two pods of a node with 0, 100 and 10,000 policies about the server, in a cluster of 5,000 other pods. weft, nftables
# and iptables all at once, measured in turns by `weft-bench matrix`.
#   compare/policies.sh [--quick] [options of weft-bench matrix]
# COUNTS='0 100' has other numbers. Writes target/bench/policies. Needs an otherwise idle machine to mean much.
#
# A policy lets one of the others in on one port; the kernel's filters have a rule for each, behind one for established
# connections. The last lets the client in, everybody else is kept out.
WEFT_LOG_DIR=$(realpath -m "$(dirname "$0")/../../target/bench/policies/logs")
export WEFT_LOG_DIR
. "$(dirname "$0")/../_lib.sh"
for part in peers weft-pair; do . "$WEFT_ROOT/perf-scripts/topo/$part.sh"; done

OUT=$WEFT_ROOT/target/bench/policies
LANES=$W/lanes.jsonl
PODS=5000
: >"$LANES"
mkdir -p "$OUT"

lane() { # DATAPATH NAME ADDRESS [PID...]
  jq -nc --arg datapath "$1" --arg name "$2" --arg address "$3" '{$datapath, placement: "same-node", wire_mtu: null,
    client: ($name + "-c"), server: ($name + "-s"), $address, tests: ["dts", "crr"],
    processes: ($ARGS.positional | map(tonumber))}' --args "${@:4}" >>"$LANES"
}

# rules COUNT TEXT: the text for each policy, with its number @n, the other pod's number @pod and address @ip, the @port.
rules() {
  awk -v count="$1" -v text="$2" -v pods=$PODS 'BEGIN {
    for (n = 0; n < count; n++) {
      pod = n % pods
      line = text
      gsub("@n", n, line)
      gsub("@pod", pod, line)
      gsub("@ip", "10.245." int(pod / 250) "." pod % 250 + 1, line)
      gsub("@port", 10000 + n % 20000, line)
      print line
    }
  }'
}

# weft_policy NAME SERVER PEER PORTS
weft_policy() {
  cat <<YAML
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: bench, name: $1}, spec: {podSelector: {matchLabels: {app: $2}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: $3}}}]$4}]}}
---
YAML
}

weft_policies() { # NAME COUNT
  rules "$2" "$(weft_policy p-@n "$1-s" o-@pod ', ports: [{port: @port}]')"
  weft_policy client "$1-s" "$1-c" ''
}

has_rules() { # NODE COUNT
  weft --run-dir "$W/$1/run" policy list -o json | jq -e "[.endpoints[].ingress | length] | max >= $2" >/dev/null
}

weft_lane() { # COUNT
  local name=w$1
  weft_alone "$name"
  rules $PODS "$(pod_manifest far bench/o-@pod | sed "s/^---/status: { phase: Running, podIPs: [{ ip: @ip }] }\n---/")" |
    manifest pods.yaml
  (($1 == 0)) || weft_policies "$name" "$1" | manifest policies.yaml
  pod "$name-1" "bench/$name-c"
  pod "$name-1" "bench/$name-s"
  within 120 "$1 rules" has_rules "$name-1" "$1"
  # shellcheck disable=SC2046
  lane "weft-$1" "$name" "$(ip4 "$name-s")" $(weft_pids "$name-1")
}

kernel_node() { # NAME
  namespace "$1-1"
  forwarding "$1-1"
  _routed_pod "$1-1" "$1-c" 1 2 65535
  _routed_pod "$1-1" "$1-s" 1 3 65535
}

nftables_lane() { # COUNT
  kernel_node "n$1"
  (($1 == 0)) || in_ns "n$1-1" nft -f - <<NFT
table ip filter {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    $(rules "$1" "ip saddr @ip ip daddr $NET.1.3 tcp dport @port accept")
    ip saddr $NET.1.2 ip daddr $NET.1.3 accept
  }
}
NFT
  lane "nftables-$1" "n$1" "$NET.1.3"
}

iptables_lane() { # COUNT
  kernel_node "i$1"
  (($1 == 0)) || in_ns "i$1-1" iptables-restore <<IPT
*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
$(rules "$1" "-A FORWARD -s @ip -d $NET.1.3 -p tcp --dport @port -j ACCEPT")
-A FORWARD -s $NET.1.2 -d $NET.1.3 -j ACCEPT
COMMIT
IPT
  lane "iptables-$1" "i$1" "$NET.1.3"
}

for count in ${COUNTS:-0 100 10000}; do
  weft_lane "$count"
  nftables_lane "$count"
  iptables_lane "$count"
done
jq -n --slurpfile lanes "$LANES" '{$lanes}' >"$W/lanes.json"
weft-bench matrix --lanes "$W/lanes.json" --out "$OUT" --setup-seconds "$SECONDS" "$@"
