#!/usr/bin/env bash
# How long a change takes from the file to the workers' tables, with the real agent and dataplane: one pod's label
# among 10,000 pods with 1,000 policies about ten local pods, one endpoint among 10,000 services of ten endpoints.
#   compare/changes.sh [BIN_DIR...]
# Several builds are measured in turns, each on a node of its own. CLUSTERS='pods services' chooses, SIZE=100 makes the
# cluster smaller, TURNS=15 changes are made. A change begins when its file was closed and ends when the agent has the
# dataplane's answer; the logs in target/bench/changes/logs say what happened in between. The processor time of agent
# and dataplane is that of a whole change, with what is done after the answer.
WEFT_LOG_DIR=$(realpath -m "$(dirname "$0")/../../target/bench/changes/logs")
export WEFT_LOG_DIR WEFT_LOG=debug
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/weft-pair.sh"

SIZE=${SIZE:-10000}
(($#)) || set -- "$WEFT_BIN_DIR"

pods() { # NAME: a file for each pod, and policies about NAME-p1 to NAME-p10
  awk -v size="$SIZE" -v name="$1" -v dir="$MANIFESTS" 'BEGIN {
    for (n = 0; n < size; n++) {
      file = dir "/" n ".yaml"
      printf "{apiVersion: v1, kind: Pod, metadata: {namespace: bench, name: o-%d, labels: {app: o-%d}}, " \
        "spec: {containers: [{name: c}]}, status: {phase: Running, podIPs: [{ip: 10.245.%d.%d}]}}\n", \
        n, n, n / 250, n % 250 + 1 >file
      close(file)
    }
    for (n = 0; n < size / 10; n++)
      printf "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: bench, name: p-%d}, " \
        "spec: {podSelector: {matchLabels: {app: %s-p%d}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: " \
        "{matchLabels: {app: o-%d}}}], ports: [{port: %d}]}]}}\n---\n", n, name, n % 10 + 1, n, 10000 + n
  }' | manifest many.yaml
}

services() { # NAME: a file for each service and its endpoints
  awk -v size="$SIZE" -v dir="$MANIFESTS" 'BEGIN {
    for (n = 0; n < size; n++) {
      file = dir "/" n ".yaml"
      printf "{apiVersion: v1, kind: Service, metadata: {namespace: bench, name: s-%d}, spec: {clusterIP: 10.96.%d.%d, " \
        "clusterIPs: [10.96.%d.%d], ports: [{port: 80}]}}\n---\n", \
        n, n / 250, n % 250 + 1, n / 250, n % 250 + 1 >file
      printf "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: bench, name: s-%d, labels: " \
        "{kubernetes.io/service-name: s-%d}}, addressType: IPv4, ports: [{port: 8080}], endpoints: [", n, n >file
      net = int(n / 25)
      for (i = 1; i <= 10; i++) printf "%s{addresses: [10.%d.%d.%d]}", (i > 1 ? ", " : ""), 245 + net / 250, net % 250, n % 25 * 10 + i >file
      print "]}" >file
      close(file)
    }
  }'
}

# What is changed in file 7.yaml, back and forth.
declare -A FROM=([pods]='app: o-7}' [services]='10.245.0.71]') TO=([pods]='app: turned}' [services]='10.250.9.71]')

answers() { grep -c 'tables changed' "$LOGS/$1.agent.log" || true; }

loaded() { # NODE: every manifest was read, and nothing changed for a while
  local now files=("$W/$1/state/manifests"/*.yaml)
  ((${#files[@]} > SIZE)) || return 1
  now=$(answers "$1")
  sleep 3
  (($(answers "$1") == now))
}

threads() { printf '%s\n' /proc/"$(pid_of "$1-1" "$2")"/task/*; }

used_ms() { # NAME ROLE: processor time so far
  threads "$1" "$2" | sed 's/$/\/schedstat/' | xargs cat | awk '{ ns += $1 } END { print ns / 1e6 }'
}

change() { # CLUSTER NAME FROM TO: milliseconds it took, by the clock and by the processor in both processes
  local file=$W/manifests-$2/7.yaml log=$LOGS/$2-1.agent.log before text began agent dataplane
  before=$(answers "$2-1") agent=$(used_ms "$2" agent) dataplane=$(used_ms "$2" dataplane)
  text=$(<"$file")
  [[ $text == *"$3"* ]] || fail "$file has no $3"
  printf '%s\n' "${text/"$3"/"$4"}" >"$file"
  began=$EPOCHREALTIME
  within 20 "the change on $2-1" eval "((\$(answers $2-1) > $before))"
  sleep 0.3
  echo "$(grep 'tables changed' "$log" | tail -1 | cut -d ' ' -f 1 | xargs -I{} date -d {} +%s.%N) $began \
    $agent $(used_ms "$2" agent) $dataplane $(used_ms "$2" dataplane)" |
    awk '{ printf "%.1f %.1f %.1f\n", ($1 - $2) * 1000, $4 - $3, $6 - $5 }'
}

column() { # N: median and range of the changes of $name
  cut -d ' ' -f "$1" "$W/took-$name" | sort -n | awk '{ v[NR] = $1 } END { printf "%s (%s to %s)", v[int((NR + 1) / 2)], v[1], v[NR] }'
}

for cluster in ${CLUSTERS:-pods services}; do
  names=()
  for dir; do
    name=$cluster${#names[@]}
    names+=("$name")
    dir=$(realpath "$dir")
    PATH=$dir:$PATH WEFT_BIN_DIR=$dir weft_idle "$name" 10
    "$cluster" "$name"
  done
  for name in "${names[@]}"; do
    within 300 "all of $name" loaded "$name-1"
    # Other programs shall disturb the figures little; the workers have a priority of their own.
    for role in agent dataplane; do threads "$name" "$role" | grep -o '[0-9]*$' | xargs renice -n -15 -p >"$LOGS/renice.log"; done
  done
  for ((turn = 0; turn < ${TURNS:-15}; turn++)); do
    for name in "${names[@]}"; do
      if ((turn % 2)); then change "$cluster" "$name" "${TO[$cluster]}" "${FROM[$cluster]}"
      else change "$cluster" "$name" "${FROM[$cluster]}" "${TO[$cluster]}"; fi >>"$W/took-$name"
    done
  done
  number=0
  for name in "${names[@]}"; do
    number=$((number + 1))
    say "$cluster, ${!number}: $(column 1) ms; processor: agent $(column 2) ms, dataplane $(column 3) ms"
    for process in keeper dataplane agent; do kill9 "$name-1" "$process"; done
  done
  NODES=()
done
