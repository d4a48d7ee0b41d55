#!/usr/bin/env bash
# The demo behind `make demo`: two nodes, three pods, real traffic, a summary. Everything lives in
# namespaces of its own and is gone when the script ends, however it ends.
#
#   demo.sh                     run and clean up; KEEP=1 leaves it up
#   demo.sh enter NAME [CMD]    a shell or a command in a pod or node of a demo left up
#   demo.sh stop                end it
set -euo pipefail
DEMO_ROOT=$(cd "$(dirname "$0")/.." && pwd)
DEMO_PID=$DEMO_ROOT/target/demo.pid   # pids of the sandbox: outside, and its process 1

demo_is_up() { [[ -s $DEMO_PID ]] && kill -0 "$(cut -d' ' -f1 "$DEMO_PID")" 2>/dev/null; }

case ${1:-} in
  stop)
    demo_is_up || { echo 'no demo is running'; exit 0; }
    read -r outside inside <"$DEMO_PID"
    kill -KILL "$outside"
    while kill -0 "$inside" 2>/dev/null; do sleep 0.05; done
    rm -f "$DEMO_PID"
    echo 'demo ended, nothing left'
    exit ;;
  enter)
    demo_is_up || { echo 'no demo is running; start one with: make demo KEEP=1' >&2; exit 1; }
    name=${2:?which pod or node?}
    shift 2
    (($#)) || set -- env "PS1=$name# " bash --norc
    exec nsenter --target "$(cut -d' ' -f2 "$DEMO_PID")" --mount --pid -- \
      env "WEFT_RUN_DIR=/run/w/$name/run" "PATH=$DEMO_ROOT/target/release:$PATH" \
      nsenter --net="/run/netns/$name" "$@" ;;
  '' ) ;;
  *) sed -n '5,7s/^# //p' "$0"; exit 2 ;;
esac

if [[ -z ${WEFT_SANDBOX:-} ]]; then
  demo_is_up && { echo "a demo is running already; end it with: deploy/demo.sh stop" >&2; exit 1; }
  if [[ -n ${KEEP:-} && -z ${DEMO_READY:-} ]]; then
    # Left up: the sandbox gets a session of its own, holds nothing of ours open, and says by a file
    # when it is ready.
    mkdir -p "$DEMO_ROOT/target"
    output=$DEMO_PID.log
    DEMO_READY=$DEMO_PID.ready
    rm -f "$DEMO_READY" "$output"
    if [[ -t 1 ]]; then export DEMO_TTY=1; fi
    DEMO_READY=$DEMO_READY setsid "$0" </dev/null >"$output" 2>&1 &
    sandbox=$!
    trap 'kill -KILL $sandbox 2>/dev/null; rm -f "$output" "$DEMO_READY"; echo; exit 130' INT TERM
    tail -n +1 -s 0.1 -F --pid=$sandbox "$output" 2>/dev/null &
    tail=$!
    until [[ -e $DEMO_READY ]]; do
      kill -0 $sandbox 2>/dev/null || { wait $tail; wait $sandbox; exit 1; }
      sleep 0.1
    done
    sleep 0.3 # for the last lines
    kill $tail
    rm -f "$DEMO_READY" "$output"
    echo "$sandbox $(pgrep -P $sandbox)" >"$DEMO_PID"
    exit
  fi
fi

export WEFT_LOG_DIR=$DEMO_ROOT/target/demo-logs
. "$DEMO_ROOT/perf-scripts/_lib.sh"
. "$DEMO_ROOT/perf-scripts/topo/two-nodes.sh"

# Interrupted, what runs in the foreground fails first: only this shell says why the demo ends.
trap '[[ $BASHPID != "$$" ]] || echo "FAIL: ${BASH_SOURCE[0]##*/} line $LINENO: $BASH_COMMAND" >&2' ERR
trap 'printf "\n\n  interrupted; all of it is gone now\n"; exit 130' INT

SECONDS_EACH=${SECONDS_EACH:-4}
[[ ! -t 1 ]] || DEMO_TTY=1
if [[ -n ${DEMO_TTY:-} && ${TERM:-dumb} != dumb ]]; then
  bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' plain=$'\e[0m'
else
  bold='' dim='' green='' plain=''
fi

# ---- progress ---------------------------------------------------------------------------------

# step TEXT COMMAND...: a line that turns while the command runs; RESULT, if set, ends it.
step() {
  local text=$1 started spinner=
  shift
  started=$(now_ms)
  RESULT=
  if [[ -n ${DEMO_TTY:-} ]]; then
    (trap - ERR; while :; do for sign in '|' / - '\'; do printf '\r  %s %s' "$sign" "$text"; sleep 0.1; done; done) &
    spinner=$!
  fi
  "$@"
  if [[ -n $spinner ]]; then
    kill "$spinner"
    wait "$spinner" 2>/dev/null || true
    printf '\r'
  fi
  printf '  %s*%s %-52s %-26s %s%6d ms%s\n' "$green" "$plain" "$text" \
    "$RESULT" "$dim" $(($(now_ms) - started)) "$plain"
}

pings() { # FROM TO: mean round trip of both families
  local family
  for family in ip4 ip6; do
    in_ns "$1" ping -q -c 20 -i 0.02 "$($family "$2")" >"$LOGS/ping.out" || fail "no ping from $1 to $2"
    RESULT+="${RESULT:+, }$(awk -F/ '/^rtt/ { printf "%.0f us", $5 * 1000 }' "$LOGS/ping.out")"
  done
}

outside() {
  ping_ok client "$OUT4"
  ping_ok client "$OUT6"
}

throughput() { # NAME SERVER IPERF-ARGS...: also kept in GBIT[NAME]
  local name=$1 server=$2 to
  to=$(ip4 "$server")
  shift 2
  GBIT[$name]=$(printf '%.2f' "$(iperf client "$to" "$SECONDS_EACH" "$@")")
  [[ ${GBIT[$name]} != 0.00 ]] || fail "next to nothing arrives at $server; drops of node1: $(dropped node1), of node2: $(dropped node2)"
  RESULT="${GBIT[$name]} Gb/s"
}

killed() { # a stream that lives through SIGKILL of the dataplane
  bg client iperf3-killed iperf3 -J -c "$(ip4 web)" -t "$SECONDS_EACH"
  local stream=$!
  sleep 1
  kill9 node1 dataplane
  start_dataplane node1
  wait $stream || fail "the stream died: $(cat "$LOGS/iperf3-killed.out")"
  within 5 'the dataplane is back' eval '[[ $(value node1 .committed) == true ]]'
  RESULT=$(jq -r '"\(.end.sum_received.bits_per_second / 1e9 * 10 | round / 10) Gb/s, \(.end.sum_sent.retransmits) retransmits"' \
    "$LOGS/iperf3-killed.out")
}

# dropped NODE: reasons and counts, in words.
dropped() { value "$1" '[.drops[] | select(.count > 0) | "\(.name) \(.count)"] | join(", ") | if . == "" then "none" else . end'; }

hostile() { # what a pod may not send, and does
  local before after
  before=$(value node1 '.drops | map(.count) | add')
  in_ns client weft-bench flood spoofed-source --count 1000 --rate 5000 --to "$(ip4 web)" >/dev/null
  in_ns client weft-bench flood vlan --count 1000 --rate 5000 --to "$(ip4 web)" >/dev/null
  sleep 0.2
  after=$(value node1 '.drops | map(.count) | add')
  RESULT="$((after - before)) dropped"
}

policed() { # a policy comes, and goes
  local started
  started=$(now_ms)
  manifest policy.yaml <<'YAML'
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { namespace: shop, name: web }
spec:
  podSelector: { matchLabels: { app: web } }
  ingress: [{ from: [{ podSelector: { matchLabels: { app: client } } }] }]
YAML
  within 2 'db is refused' eval '! in_ns db ping -c 1 -W 0.2 "$(ip4 web)"'
  RESULT="in force after $(($(now_ms) - started)) ms"
  ping_ok client "$(ip4 web)"
  rm "$MANIFESTS/policy.yaml"
  within 2 'db is let in again' in_ns db ping -c 1 -W 0.5 "$(ip4 web)"
}

served() { # web behind a cluster IP
  manifest service.yaml <<YAML
apiVersion: v1
kind: Service
metadata: { namespace: shop, name: web }
spec:
  clusterIP: 10.96.0.10
  ports: [{ port: 80, targetPort: 5201 }]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { namespace: shop, name: web-1, labels: { kubernetes.io/service-name: web } }
addressType: IPv4
ports: [{ protocol: TCP, port: 5201 }]
endpoints: [{ addresses: ["$(ip4 web)"], nodeName: node1 }]
YAML
  within 2 'the service is there' eval 'weft --run-dir "$W/node1/run" service show shop/web'
  RESULT="$(iperf client 10.96.0.10 "$SECONDS_EACH" -p 80) Gb/s"
}

# ---- summary ----------------------------------------------------------------------------------

pod_line() { # NODE NAME
  printf '  %-8s %-7s %-14s %-22s %s\n' "$2" "$1" "$(ip4 "$2")" "$(ip6 "$2")" "$(port "$2")"
}

# A node in four lines of `weft status --output json`.
node_summary() {
  status "$1" | jq -r '
    def dots: tostring | [while(length > 0; .[:-3]) | .[-3:]] | reverse | join(",");
    def listed: map(select(.count > 0) | "\(.count | dots) \(.name)") | if length == 0 then "none" else join(", ") end;
    "  packets    \(.verdicts | listed)",
    "  drops      \(.drops | listed)",
    "  frames     \(.frames.total | dots): \(.frames.free | dots) free, \(.frames.fill | dots) lent to rings, \(.frames.leaked) leaked",
    "  dataplane  pid \(.pid), up \(.uptime_s) s, \(.restarts) restarts, \(.ports | length) ports, \(.workers | length) workers"'
}

summary() {
  echo
  echo "${bold}Pods${plain}"
  pod_line node1 web
  pod_line node1 client
  pod_line node2 db
  echo
  echo "${bold}Throughput${plain} ${dim}(iperf3, Gb/s received, $SECONDS_EACH s each)${plain}"
  printf '  %-22s %8s %10s %12s\n' '' 'TCP 1' 'TCP 8' 'UDP 1400 B'
  printf '  %-22s %8s %10s %12s\n' 'client to web, 1 node' "${GBIT[same1]}" "${GBIT[same8]}" "${GBIT[sameu]}"
  printf '  %-22s %8s %10s %12s\n' 'client to db, 2 nodes' "${GBIT[cross1]}" "${GBIT[cross8]}" "${GBIT[crossu]}"
  for node in node1 node2; do
    echo
    echo "${bold}$node${plain}"
    node_summary $node
  done
}

hints() {
  cat <<TEXT

${bold}Left up.${plain} As root, from $DEMO_ROOT:
  deploy/demo.sh enter client                         a shell in a pod
  deploy/demo.sh enter client traceroute $(ip4 db)
  deploy/demo.sh enter client iperf3 -c $(ip4 web) -t 20
  deploy/demo.sh enter node1 weft status              what the dataplane says
  deploy/demo.sh enter node1 weft port
  deploy/demo.sh enter node1 weft policy explain shop/client shop/web --port 80/tcp
  deploy/demo.sh enter node1 weft flow list           every connection, and why it may be
  deploy/demo.sh enter node1 weft service show shop/web
  deploy/demo.sh enter node1 weft capture -w /tmp/weft.pcapng
  deploy/demo.sh enter node1 pkill -KILL weft-dataplane
                                                      while the iperf3 above runs: it does not notice
  deploy/demo.sh stop                                 end it; or: make demo-stop
The manifests are in $MANIFESTS (seen from node1), logs in ${LOGS#"$DEMO_ROOT"/}.
TEXT
}

# ---- the demo ---------------------------------------------------------------------------------

declare -A GBIT
echo "${bold}weft demo${plain} ${dim}two nodes, VXLAN over a 1500-byte wire, kernel $(uname -r)${plain}"
step 'two nodes: keeper, dataplane, agent each' two_nodes
step 'pod shop/web on node1, through the CNI binary' pod node1 shop/web
step 'pod shop/client on node1' pod node1 shop/client
step 'pod shop/db on node2' pod node2 shop/db
iperf_server web
iperf_server db
step 'ping on one node, IPv4 and IPv6' pings client web
step 'ping across nodes, IPv4 and IPv6' pings client db
step 'ping an address outside the cluster (masqueraded)' outside
step 'iperf3 while the dataplane is killed with SIGKILL' killed
step 'iperf3 on one node, TCP' throughput same1 web
step 'iperf3 on one node, TCP, 8 streams' throughput same8 web -P 8
step 'iperf3 on one node, UDP' throughput sameu web -u -b 0 -l 1400
step 'iperf3 across nodes, TCP' throughput cross1 db
step 'iperf3 across nodes, TCP, 8 streams' throughput cross8 db -P 8
step 'iperf3 across nodes, UDP' throughput crossu db -u -b 0 -l 1400
step '2,000 forged frames from a pod' hostile
step 'a NetworkPolicy: client may reach web, db may not' policed
step "iperf3 by a service's cluster IP, TCP" served
summary

if [[ -n ${KEEP:-} ]]; then
  hints
  touch "$DEMO_READY"
  exec >"$LOGS/kept.log" 2>&1
  # The supervisor a real node has: whoever kills a dataplane gets a new one.
  while sleep 0.1; do
    for node in "${NODES[@]}"; do alive "$node" dataplane || start_dataplane "$node"; done
  done
fi
echo
echo "${dim}All of it is gone now. To keep it: make demo KEEP=1${plain}"
