#!/usr/bin/env bash
# An idle node with 20 dual-stack pods: processor time of all of weft's processes from scheduler
# statistics, and the machine's softirq time beside it (which other work on the machine adds to).
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

IDLE_SECONDS=${IDLE_SECONDS:-15}

two_nodes
for ((i = 1; i <= 20; i++)); do pod node1 "shop/idle$i"; done
expect 'pod ports' "$(value node1 '[.ports[] | select(.kind == "pod")] | length')" -eq 20
sleep 3 # neighbour discovery and multicast reports of the new pods

cpu_ns() { # ROLE: nanoseconds on a processor, all threads
  cat /proc/"$(pid_of node1 "$1")"/task/*/schedstat | awk '{ ns += $1 } END { printf "%.0f\n", ns }'
}
softirq_ms() { awk -v hz="$(getconf CLK_TCK)" '/^cpu / { printf "%.0f\n", $8 * 1000 / hz }' /proc/stat; }

declare -A before
for role in keeper dataplane agent; do before[$role]=$(cpu_ns $role); done
softirq=$(softirq_ms)
sleep "$IDLE_SECONDS"
total=0
report=
for role in keeper dataplane agent; do
  used=$(($(cpu_ns $role) - before[$role]))
  total=$((total + used))
  report+=" $role $((used / 1000000)) ms,"
done
say "$IDLE_SECONDS s with 20 pods:$report softirq of the whole machine $(($(softirq_ms) - softirq)) ms"
say "processor share: $(awk -v ns=$total -v s="$IDLE_SECONDS" 'BEGIN { printf "%.2f", ns / s / 1e7 }') % of one core"
expect 'nanoseconds of one core, 1 %' "$total" -lt $((IDLE_SECONDS * 10000000))
