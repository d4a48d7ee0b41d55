# Pods with policies, and who of them reaches whom. Source it after _lib.sh.
# shellcheck shell=bash disable=SC2034

declare -A POD_NODE # NS/NAME -> node, of every pod made by policy_pod

# policy_pod NODE NS/NAME LABEL=VALUE...: a pod with labels. Like a kubelet it says in the object what
# address the pod got, so that other nodes know; containers name the ports 80 and 81. The network
# namespace is NS-NAME.
policy_pod() {
  local node=$1 pod=$2 file=pod-${2/\//-}.yaml
  shift 2
  POD_NODE[$pod]=$node
  labelled_pod "$node" "$pod" '' "$@" | manifest "$file"
  namespace "${pod/\//-}"
  labelled_cni ADD "$node" "$pod"
  labelled_pod "$node" "$pod" "$(addresses_of "$pod" | jq -Rc . | jq -sc 'map({ip: .})')" "$@" | manifest "$file"
}

labelled_cni() { # COMMAND NODE NS/NAME
  local netns=${3/\//-}
  cni_config "$2" | CNI_COMMAND=$1 CNI_CONTAINERID=$netns CNI_NETNS=/run/netns/$netns \
    CNI_IFNAME=eth0 CNI_PATH=$WEFT_BIN_DIR \
    CNI_ARGS="K8S_POD_NAMESPACE=${3%/*};K8S_POD_NAME=${3#*/}" \
    in_ns "$2" weft-cni >"$W/pods/$netns.json" 2>"$LOGS/$1-$netns.log" ||
    fail "CNI $1 $3 on $2: $(cat "$W/pods/$netns.json" "$LOGS/$1-$netns.log")"
}

labelled_pod() { # NODE NS/NAME POD-IPS LABEL=VALUE...
  local node=$1 pod=$2 ips=$3
  shift 3
  jq -n --arg node "$node" --arg ns "${pod%/*}" --arg name "${pod#*/}" --argjson ips "${ips:-null}" \
    '{apiVersion: "v1", kind: "Pod",
      metadata: {namespace: $ns, name: $name,
        labels: ($ARGS.positional | map(split("=") | {(.[0]): .[1]}) | add)},
      spec: {nodeName: $node, containers: [{name: "main", image: "none",
        ports: [("TCP", "UDP", "SCTP") as $p | (80, 81) |
          {name: "serve-\(.)-\($p | ascii_downcase)", containerPort: ., protocol: $p}]}]},
      status: (if $ips then {phase: "Running", podIPs: $ips, podIP: $ips[0].ip} else {} end)}' \
    --args "$@"
}

# labelled_namespace NAME LABEL=VALUE...
labelled_namespace() {
  local name=$1
  shift
  jq -n --arg name "$name" \
    '{apiVersion: "v1", kind: "Namespace", metadata: {name: $name,
      labels: ({"kubernetes.io/metadata.name": $name} + ($ARGS.positional | map(split("=") | {(.[0]): .[1]}) | add // {}))}}' \
    --args "$@" | manifest "namespace-$name.yaml"
}

# addresses_of NS/NAME: one per line, IPv4 first.
addresses_of() { ip4 "${1/\//-}"; ip6 "${1/\//-}"; }

# reach_start [PORT...]: one process with the sockets of every pod made so far, at 80 and 81 or these ports; then
# `reach` asks it.
reach_start() {
  local pod port args=()
  for port in "$@"; do args+=(--port "$port"); done
  for pod in "${!POD_NODE[@]}"; do
    args+=(--pod "$pod=${pod/\//-}=${POD_NODE[$pod]}=$(addresses_of "$pod" | paste -sd,)")
  done
  coproc REACH { exec weft-bench reach "${args[@]}" 2>"$LOGS/reach.log"; }
}

# reach FAMILY PORT...: prints who reaches whom.
reach() {
  local family=$1 answer
  shift
  jq -nc --argjson family "$family" '{family: $family, ports: $ARGS.positional}' --args "$@" >&"${REACH[1]}"
  read -r -t 20 answer <&"${REACH[0]}" || fail "no answer from reach: $(cat "$LOGS/reach.log")"
  echo "$answer"
}

# reach_becomes WHAT EXPECTED FAMILY PORT...: EXPECTED is JSON, source to destination to letters; pairs
# it does not name are not looked at. A change of policy has two seconds to be everywhere, and then
# has to hold for a second look. Everything that was blocked in that look was dropped by policy,
# packet by packet.
reach_becomes() {
  local what=$1 expected=$2 wrong='' answer before end=$((SECONDS + 3))
  shift 2
  until answer=$(reach "$@"); wrong=$(reach_differs "$expected" "$answer"); [[ -z $wrong ]]; do
    ((SECONDS < end)) || fail "$what: $wrong"
  done
  before=$(policy_drops)
  answer=$(reach "$@")
  wrong=$(reach_differs "$expected" "$answer")
  [[ -z $wrong ]] || fail "$what, a second time: $wrong"
  expect "$what: drops by policy" "$(($(policy_drops) - before))" -ge "$(jq .blocked <<<"$answer")"
}

reach_differs() { # EXPECTED ANSWER: the pairs that differ, none if there is none
  jq -nr --argjson expected "$1" --argjson answer "$2" \
    '[$expected | to_entries[] | .key as $from | .value | to_entries[] | .key as $to |
      {pair: "\($from) to \($to)", expected: .value, is: $answer.reached[$from][$to]} |
      select(.expected != .is) | "\(.pair): \(.is) is not \(.expected)"] | .[:5] | join("; ")'
}

policy_drops() {
  local node sum=0
  for node in "${NODES[@]}"; do
    sum=$((sum + $(value "$node" '[.drops[] | select(.name | startswith("policy-")) | .count] | add')))
  done
  echo "$sum"
}

# policy NAME SPEC(json) [NAMESPACE]: a NetworkPolicy in namespace a, or another.
policy() {
  jq -n --arg name "$1" --arg ns "${3:-a}" --argjson spec "$2" '{apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy", metadata: {namespace: $ns, name: $name}, spec: $spec}' | manifest "policy-$1.yaml"
}

# five_pods: a server, a friend of the same namespace and a stranger of another on node1, a friend and a
# stranger on node2.
five_pods() {
  labelled_namespace a team=blue
  labelled_namespace b team=red
  policy_pod node1 a/server app=server
  policy_pod node1 a/friend app=friend
  policy_pod node1 b/stranger app=stranger
  policy_pod node2 a/far app=friend
  policy_pod node2 b/faraway app=stranger
  reach_start
}

# weft_on NODE ARGS...: the weft command.
weft_on() {
  local node=$1
  shift
  weft --run-dir "$W/$node/run" "$@"
}

# explained FROM TO TRAFFIC: . or x, as the nodes of both ends say together.
explained() {
  local protocol=${3%/*} answer=. node
  for node in "${POD_NODE[$1]}" "${POD_NODE[$2]}"; do
    weft_on "$node" policy explain "$1" "$2" --port "${3#*/}/${protocol,,}" >>"$LOGS/explain.out" || answer=x
  done
  echo $answer
}
