# Pairs of weft nodes for the benchmark, several side by side. Source it after peers.sh.
#
#   weft_pair NAME WIRE_MTU     nodes NAME-1 and NAME-2 on a wire without offloads; pods NAME-c and
#                               NAME-s on node 1, NAME-r on node 2; an outside behind node 1
#   weft_alone NAME             node NAME-1 alone
#   weft_idle NAME PODS         the same with that many pods
#   weft_pids NODE              its keeper, dataplane and agent
# As in a cluster that cares, every pod is selected by a NetworkPolicy of its own.
# shellcheck shell=bash

weft_pair() {
  local name=$1 n
  MANIFESTS=$W/manifests-$name
  mkdir -p "$MANIFESTS"
  for n in 1 2; do node "$name-$n"; done
  wire "$name-1" u0 "$name-2" u0 "$2"
  for n in 1 2; do
    address "$name-$n" u0 "192.0.2.$n/24"
    offloads_off "$name-$n" u0
    _weft_node_manifest "$name-$n" "$n"
  done | manifest nodes.yaml
  outside_of "$name-1"
  for n in 1 2; do weft_start "$name-$n" u0; done
  wait_ready "$name-1" "$name-2"
  for n in c s r; do _weft_policy "$name-$n"; done | manifest policies.yaml
  pod "$name-1" "bench/$name-c"
  pod "$name-1" "bench/$name-s"
  pod "$name-2" "bench/$name-r"
}

weft_alone() {
  local name=$1
  MANIFESTS=$W/manifests-$name
  mkdir -p "$MANIFESTS"
  node "$name-1"
  namespace "$name-far"
  wire "$name-1" u0 "$name-far" u0 1500
  address "$name-1" u0 192.0.2.1/24
  _weft_node_manifest "$name-1" 1 | manifest nodes.yaml
  weft_start "$name-1" u0
  wait_ready "$name-1"
}

weft_idle() {
  local name=$1 i
  weft_alone "$name"
  for ((i = 1; i <= $2; i++)); do _weft_policy "$name-p$i"; done | manifest policies.yaml
  for ((i = 1; i <= $2; i++)); do pod_manifest "$name-1" "bench/$name-p$i"; done | manifest pods.yaml
  for ((i = 1; i <= $2; i++)); do pod "$name-1" "bench/$name-p$i"; done
}

weft_pids() { cat "$W/pids/$1".{keeper,dataplane,agent}; }

_weft_node_manifest() { # NODE N
  cat <<YAML
apiVersion: v1
kind: Node
metadata: { name: $1 }
spec:
  podCIDRs: [10.244.$2.0/24, "fd00:10:244:$2::/64"]
status:
  addresses: [{ type: InternalIP, address: 192.0.2.$2 }]
---
YAML
}

_weft_policy() { # POD: who may connect to it, and where it may connect to
  cat <<YAML
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { namespace: bench, name: policy-of-$1 }
spec:
  podSelector: { matchLabels: { app: $1 } }
  policyTypes: [Ingress, Egress]
  ingress: [{ from: [{ ipBlock: { cidr: 10.244.0.0/16 } }] }]
  egress: [{ to: [{ ipBlock: { cidr: 0.0.0.0/0, except: [169.254.169.254/32] } }] }]
---
YAML
}
