#!/usr/bin/env bash
# A kube-proxy in iptables mode beside weft: with its rules on both nodes, pods and processes of the nodes reach
# services on the same node and across, over both families; so they do where it masquerades everybody
# (--masquerade-all), and pods do when its rules are behind. Pods never meet the rules, the nodes do.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"
. "$WEFT_ROOT/perf-scripts/_service.sh"
. "$WEFT_ROOT/perf-scripts/_kube_proxy.sh"

two_nodes
pod node1 shop/client
pod node1 shop/near
pod node2 shop/far
for name in near far; do web_server "$name"; done
slices web near far
service web 10.96.0.10 fd00:10:96::10 | manifest service.yaml
within 5 'the service answers' eval '[[ $(asks client 10.96.0.10 1) == [nf]*r ]]'

rules() { # CIDR4 CIDR6 POD...: what kube-proxy writes on both nodes; `all` masquerades everybody
  local n four=() six=() cidr4=$1 cidr6=$2
  for n in "${@:3}"; do
    four+=("$(at "$(ip4 "$n")" 8080)")
    six+=("$(at "$(ip6 "$n")" 8080)")
  done
  for n in node1 node2; do
    echo "tcp 10.96.0.10 80 ${four[*]}" | kube_proxy_iptables 4 "$cidr4" | in_ns $n iptables-restore
    echo "tcp fd00:10:96::10 80 ${six[*]}" | kube_proxy_iptables 6 "$cidr6" | in_ns $n ip6tables-restore
  done
}

met() { in_ns node1 iptables-save -c -t nat | sed -n 's/^\[\([0-9]*\):.*-A KUBE-SERVICES -d 10\.96\.0\.10.*/\1/p'; }

all_answer() { # WHAT NS...: both pods serve each of them by both addresses
  local from address answers
  for from in "${@:2}"; do
    for address in 10.96.0.10 fd00:10:96::10; do
      answers=$(asks "$from" $address 20 | sort -u | paste -sd,)
      expect "$1: $from asks $address" "$answers" = far,near
    done
  done
}

rules 10.244.0.0/16 fd00:10:244::/48 near far
all_answer 'beside kube-proxy' client
expect 'rules a pod met' "$(met)" -eq 0
all_answer 'beside kube-proxy' node1 node2
own=$(met)
expect 'rules the node met' "$own" -ge 20
rules all all near far
all_answer 'masquerade-all' client node1 node2
rules 10.244.0.0/16 fd00:10:244::/48 near
all_answer 'rules that are behind' client
say "pods are served by weft, and $own connections of node1 itself by the rules"
