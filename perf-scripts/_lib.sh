# Sourced first by every script that builds a topology. It runs the script again inside mount, net
# and pid namespaces of its own with a private /run, so that nothing can be left behind: when the
# script ends, or is killed with SIGKILL, the kernel takes every process, interface, mount and
# network namespace with it.
#
#   node NAME                     a node: network namespace, run, state and manifest directories
#   wire A IF B IF [MTU [QUEUES]] a veth between two namespaces
#   weft_start NODE IF...         keeper, dataplane --underlay IF..., agent
#   pod NODE NS/NAME              a pod attached by the real CNI binary; prints nothing
#   in_ns NS COMMAND...           runs in a namespace (never `ip netns exec`: it hides /sys)
#   wait_ready NODE...            until the node takes pods and knows the way to every other node
#
# A test that ends with status 0 has also shown that no frame leaked and no process of weft died.
# shellcheck shell=bash
set -Eeuo pipefail

WEFT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WEFT_SCRIPT=$(realpath "$0")
WEFT_TEST=$(basename "$0" .sh)
WEFT_TEST=${WEFT_TEST%_test}

if [[ -z ${WEFT_BIN_DIR:-} ]]; then
  WEFT_BIN_DIR=$WEFT_ROOT/target/release
  for binary in weft weft-agent weft-bench weft-cni weft-dataplane weft-keeper; do
    [[ -x $WEFT_BIN_DIR/$binary ]] || WEFT_BIN_DIR=$WEFT_ROOT/target/debug
  done
fi
export WEFT_BIN_DIR PATH="$WEFT_BIN_DIR:/usr/sbin:/sbin:$PATH" LC_ALL=C

if [[ ${WEFT_SANDBOX:-} != "$WEFT_SCRIPT" ]]; then
  ((EUID == 0)) || { echo "$WEFT_TEST: needs root (network namespaces, XDP)" >&2; exit 1; }
  export WEFT_SANDBOX=$WEFT_SCRIPT
  exec unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private \
    bash "$WEFT_SCRIPT" "$@"
fi

mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/w
ip link set dev lo up

W=/run/w                       # everything of this run
MANIFESTS=$W/manifests         # desired state, shared by all nodes as an API server would be
export NO_COLOR=1
LOGS=${WEFT_LOG_DIR:-$WEFT_ROOT/target/smoke/$WEFT_TEST}
NODES=()                       # nodes that run weft
rm -rf "$LOGS"
mkdir -p "$MANIFESTS" "$LOGS" "$W/pods" "$W/pids"

# ---- results ----------------------------------------------------------------------------------

say() { printf '%s\n' "$*"; }

fail() {
  printf 'FAIL: %s\n' "$*" >&2
  exit 1
}

# expect WHAT VALUE OP VALUE: integers, op as in test(1), or = and != for text.
expect() {
  # shellcheck disable=SC2086
  test "$2" $3 "$4" || fail "$1: $2 $3 $4 does not hold"
}

# within SECONDS WHAT COMMAND...: until the command succeeds.
within() {
  local seconds=$1 what=$2 end
  shift 2
  end=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || fail "not within $seconds s: $what"
    sleep 0.1
  done
}

now_ms() { echo $(($(date +%s%N) / 1000000)); }

_finish() {
  local status=$? node
  trap - EXIT
  set +e
  if ((status == 0)); then
    for node in "${NODES[@]}"; do _sound "$node" || status=1; done
  fi
  ((status == 0 || status == 130)) || _show_logs
  exit "$status"
}
trap _finish EXIT
trap 'echo "FAIL: ${BASH_SOURCE[0]##*/} line $LINENO: $BASH_COMMAND" >&2' ERR
trap 'exit 130' INT
trap 'exit 143' TERM

# Frames accounted for, nobody panicked.
_sound() {
  local node=$1 leaked end=$((SECONDS + 3))
  if grep -l 'panicked at' "$LOGS/$node".*.log; then
    say "FAIL: a process of $node panicked"
    return 1
  fi
  if grep -l $'\e' "$LOGS/$node".*.log; then
    say "FAIL: a process of $node writes colours into a file"
    return 1
  fi
  alive "$node" dataplane || return 0
  while leaked=$(status "$node" | jq .frames.leaked); [[ $leaked != 0 ]]; do
    if ((SECONDS >= end)); then
      say "FAIL: $node: frames.leaked is ${leaked:-unknown}"
      status "$node" | jq -c .frames
      return 1
    fi
    sleep 0.2
  done
}

_show_logs() {
  local file node
  for node in "${NODES[@]}"; do
    alive "$node" dataplane || { echo "--- $node has no dataplane"; continue; }
    printf -- '--- %s: ' "$node"
    status "$node" | jq -c '{drops: [.drops[] | select(.count > 0) | {(.name): .count}] | add, frames,
      problems, kernel_drops: [.ports[].counters | .rx_kernel_drops + .tx_ring_full] | add}'
  done
  for file in "$LOGS"/*.log; do
    [[ -s $file ]] || continue
    printf -- '--- %s (last 10 lines)\n' "${file#"$WEFT_ROOT"/}"
    tail -n 10 "$file"
  done
} >&2

# ---- namespaces and wires ---------------------------------------------------------------------

in_ns() {
  local ns=$1
  shift
  nsenter --net="/run/netns/$ns" "$@"
}

# bg NS LOG COMMAND...: in the background; its pid is then in $!.
bg() {
  local ns=$1 log=$2
  shift 2
  nsenter --net="/run/netns/$ns" "$@" >"$LOGS/$log.out" 2>"$LOGS/$log.log" </dev/null &
}

# finish PID SIGNAL: ends a background tool that prints its result when told to stop.
finish() {
  kill "-$2" "$1" 2>/dev/null || true
  wait "$1" || true
}

namespace() {
  ip netns add "$1"
  ip -n "$1" link set dev lo up
}

wire() {
  local a=$1 ifa=$2 b=$3 ifb=$4 mtu=${5:-1500} queues=${6:-1} end
  ip link add name "$ifa" netns "$a" mtu "$mtu" numtxqueues "$queues" numrxqueues "$queues" \
    type veth peer name "$ifb" netns "$b" mtu "$mtu" numtxqueues "$queues" numrxqueues "$queues"
  for end in "$a $ifa" "$b $ifb"; do
    # shellcheck disable=SC2086
    set -- $end
    in_ns "$1" sysctl -qw "net.ipv6.conf.$2.accept_dad=0"
    ip -n "$1" link set dev "$2" up
  done
}

# address NS IF ADDRESS...
address() {
  local ns=$1 dev=$2 one
  shift 2
  for one in "$@"; do
    if [[ $one == *:* ]]; then ip -n "$ns" addr add "$one" dev "$dev" nodad
    else ip -n "$ns" addr add "$one" dev "$dev"; fi
  done
}

# ---- nodes ------------------------------------------------------------------------------------

node() {
  namespace "$1"
  mkdir -p "$W/$1/run" "$W/$1/state"
}

# spawn NODE ROLE COMMAND...: a process of weft in the node's namespace, its pid on file.
spawn() {
  local node=$1 role=$2
  shift 2
  nsenter --net="/run/netns/$node" "$@" >>"$LOGS/$node.$role.log" 2>&1 </dev/null &
  echo $! >"$W/pids/$node.$role"
}

pid_of() { cat "$W/pids/$1.$2"; }

alive() { [[ -e $W/pids/$1.$2 ]] && kill -0 "$(pid_of "$1" "$2")" 2>/dev/null; }

# kill9 NODE ROLE
kill9() {
  local pid
  pid=$(pid_of "$1" "$2")
  kill -KILL "$pid"
  wait "$pid" 2>/dev/null || true
}

start_keeper() {
  spawn "$1" keeper weft-keeper --run-dir "$W/$1/run"
  within 10 "keeper of $1 serves" test -S "$W/$1/run/keeper.sock"
}

DATAPLANE_ARGS=() # more arguments of every dataplane

start_dataplane() {
  local node=$1 underlay=()
  shift
  (($#)) || read -ra underlay <"$W/$node/underlay"
  while (($#)); do
    underlay+=(--underlay "$1")
    shift
  done
  echo "${underlay[*]}" >"$W/$node/underlay"
  spawn "$node" dataplane taskset -c "$(_core_of "$node")" \
    weft-dataplane --run-dir "$W/$node/run" "${underlay[@]}" "${DATAPLANE_ARGS[@]}"
}

# A node stands for a machine of its own: the workers of node1 and node2 do not share a core where
# there are two. A worker takes the last core its process may use.
_core_of() {
  local number=${1##*[!0-9]} cores
  cores=$(nproc)
  echo $(((cores - ${number:-1} % cores) % cores))
}

start_agent() {
  spawn "$1" agent weft-agent --run-dir "$W/$1/run" --state-dir "$W/$1/state" --node "$1" \
    --source "dir:$MANIFESTS"
}

weft_start() {
  NODES+=("$1")
  start_keeper "$1"
  start_dataplane "$@"
  start_agent "$1"
}

# status NODE: what the dataplane says of itself, as JSON. That it also found a problem (exit status
# 1, for example an agent that is not there) is for the caller to ask.
status() { { weft --run-dir "$W/$1/run" status --output json || true; } | jq -c .; }

# value NODE JQ-PATH
value() { status "$1" | jq -r "$2"; }

# drops NODE REASON
drops() { value "$1" ".drops[] | select(.name == \"$2\") | .count"; }

_ready() {
  local node
  for node in "$@"; do
    CNI_COMMAND=STATUS CNI_PATH=$WEFT_BIN_DIR in_ns "$node" weft-cni <<<"$(cni_config "$node")"
    status "$node" | jq -e '.committed and all(.remotes[]; .next_hop_mac != null)'
  done
}

wait_ready() { within 15 "$* ready" _ready "$@"; }

# ---- pods -------------------------------------------------------------------------------------

cni_config() {
  jq -nc --arg run "$W/$1/run" '{cniVersion: "1.1.0", name: "weft", type: "weft-cni", runDir: $run}'
}

# cni COMMAND NODE NS/NAME: what a container runtime does; prints the plugin's answer.
cni() {
  local command=$1 node=$2 name=${3#*/} namespace=${3%/*}
  cni_config "$node" | CNI_COMMAND=$command CNI_CONTAINERID=$name CNI_NETNS=/run/netns/$name \
    CNI_IFNAME=eth0 CNI_PATH=$WEFT_BIN_DIR \
    CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=$namespace;K8S_POD_NAME=$name" \
    in_ns "$node" weft-cni
}

# manifest FILE < YAML: into the desired state, by rename, as the agent's watch expects.
manifest() {
  cat >"$W/new-$1"
  mv "$W/new-$1" "$MANIFESTS/$1"
}

pod_manifest() { # NODE NS/NAME
  cat <<YAML
apiVersion: v1
kind: Pod
metadata: { namespace: ${2%/*}, name: ${2#*/}, labels: { app: ${2#*/} } }
spec:
  nodeName: $1
  containers: [{ name: main, image: none }]
---
YAML
}

pod() {
  local node=$1 name=${2#*/}
  grep -qs "name: $name[,} ]" "$MANIFESTS"/*.yaml || pod_manifest "$@" | manifest "pod-$name.yaml"
  namespace "$name"
  cni ADD "$@" >"$W/pods/$name.json" 2>"$LOGS/add-$name.log" ||
    fail "CNI ADD $2 on $node: $(cat "$W/pods/$name.json" "$LOGS/add-$name.log")"
}

# ip4 POD, ip6 POD, port POD: address, host end's name.
ip4() { jq -r '[.ips[].address | select(contains(":") | not)][0] // empty | sub("/.*"; "")' "$W/pods/$1.json"; }
ip6() { jq -r '[.ips[].address | select(contains(":"))][0] // empty | sub("/.*"; "")' "$W/pods/$1.json"; }
port() { jq -r '[.interfaces[] | select((.sandbox // "") == "")][0].name' "$W/pods/$1.json"; }

# port_counter NODE POD COUNTER
port_counter() {
  value "$1" ".ports[] | select(.name == \"$(port "$2")\") | .counters.$3"
}

# ---- traffic ----------------------------------------------------------------------------------

# ping_ok NS ADDRESS [ARGS...]: two pings, both answered. After the last one ping waits for an interval
# only: on a loaded machine 50 ms were too few.
ping_ok() {
  local ns=$1 to=$2
  shift 2
  in_ns "$ns" ping -c 2 -i 0.2 -W 2 "$@" "$to" >"$LOGS/ping.out" 2>&1 ||
    fail "no ping from $ns to $to: $(tail -3 "$LOGS/ping.out")"
  grep -q ' 0% packet loss' "$LOGS/ping.out" || fail "ping from $ns to $to loses: $(tail -2 "$LOGS/ping.out")"
}

ping_fails() { ! in_ns "$1" ping -c 2 -i 0.2 -W 1 "$2" >/dev/null 2>&1; }

# at ADDRESS PORT: ADDRESS:PORT, [ADDRESS]:PORT.
at() { if [[ $1 == *:* ]]; then echo "[$1]:$2"; else echo "$1:$2"; fi; }

# What measures must not wait behind what is measured: a command that raises the priority of the
# one behind it. Used as a prefix where a test overloads the machine on purpose.
# shellcheck disable=SC2034
STEADY=(chrt -f 2)
chrt -f 2 true 2>/dev/null || STEADY=(nice -n -20)

# echo_server NS ADDRESS [PREFIX...]: a probe server on port 7; its pid is then in $!.
echo_server() {
  bg "$1" "echo-$1-${2//:/_}" "${@:3}" weft-bench probe server --listen "$(at "$2" 7)"
  within 5 "probe server on $2" _listens "$1" u 7
}

_listens() { in_ns "$1" ss "-${2}lnH" "sport = :$3" | grep -q .; }

# probe NS TO RATE SECONDS [ARGS...]: prints the client's JSON.
probe() {
  local ns=$1 to=$2 rate=$3 seconds=$4
  shift 4
  in_ns "$ns" weft-bench probe client --to "$to" --rate "$rate" --seconds "$seconds" "$@"
}

# probe_clean NS TO RATE SECONDS [ARGS...]: nothing lost, nothing damaged. What was lost while the
# machine stood still (a host that gives its processors to others) is none of ours.
probe_clean() {
  local result
  result=$(probe "$@") || fail "probe from $1 to $2 did not run"
  clean_probe "$1 to $2" "$result"
}

clean_probe() { # WHAT JSON
  jq -e '.sent > 0 and .lost <= .excused and .corrupted == 0 and .errors == 0' <<<"$2" >/dev/null ||
    fail "probe $1: $2"
}

# tcp_clean FROM TO ADDRESS BYTES: seeded bytes from namespace FROM to ADDRESS of namespace TO
# arrive unchanged.
tcp_clean() {
  local from=$1 to=$2 address=$3 bytes=$4 server sent got
  bg "$to" tcp-server weft-bench tcp-hash server --listen "$(at "$address" 5001)"
  server=$!
  within 5 "tcp-hash on $address" _listens "$to" t 5001
  sent=$(in_ns "$from" timeout 60 weft-bench tcp-hash client --to "$(at "$address" 5001)" --bytes "$bytes" \
    2>"$LOGS/tcp-client.log") || fail "TCP $from to $to ($address): $(cat "$LOGS/tcp-client.log")"
  wait "$server" || fail "TCP server of $to: $(cat "$LOGS/tcp-server.log")"
  got=$(cat "$LOGS/tcp-server.out")
  expect "TCP $from to $to ($address)" "$got" = "$sent"
}

# frames FILE FILTER: how many frames of a capture tshark's display filter picks.
frames() {
  tshark -r "$1" -o udp.check_checksum:TRUE -Y "$2" >"$LOGS/tshark.out" 2>"$LOGS/tshark.log" ||
    fail "tshark on ${1##*/}, $2: $(cat "$LOGS/tshark.log")"
  wc -l <"$LOGS/tshark.out"
}

# iperf_server NS [PORT]
iperf_server() {
  bg "$1" "iperf3-$1-${2:-5201}" iperf3 -s -p "${2:-5201}"
  within 5 "iperf3 in $1" _listens "$1" t "${2:-5201}"
}

# iperf NS TO SECONDS [ARGS...]: prints received Gb/s with two digits.
iperf() {
  local ns=$1 to=$2 seconds=$3
  shift 3
  in_ns "$ns" timeout $((seconds + 20)) iperf3 -J -c "$to" -t "$seconds" "$@" >"$LOGS/iperf.json" 2>"$LOGS/iperf.log" ||
    fail "iperf3 $ns to $to: $(jq -r .error "$LOGS/iperf.json" 2>/dev/null || cat "$LOGS"/iperf.*)"
  jq -r '(.end.sum_received // .end.sum).bits_per_second / 1e9 * 100 | round / 100' "$LOGS/iperf.json" 2>>"$LOGS/iperf.log"
}
