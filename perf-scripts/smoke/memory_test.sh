#!/usr/bin/env bash
# A node with 110 pods stays under 300 MiB: proportional set size of all of weft's processes, plus
# the whole memfd, plus the kernel memory that attaching 110 ports took.
. "$(dirname "$0")/../_lib.sh"
. "$WEFT_ROOT/perf-scripts/topo/two-nodes.sh"

PODS=${PODS:-110}
LIMIT_KB=$((300 * 1024))

two_nodes
for ((i = 1; i <= PODS; i++)); do pod_manifest node1 "shop/many$i"; done | manifest many.yaml
for ((i = 1; i <= PODS; i++)); do ip netns add "many$i"; done

# Memory that no process and no cache accounts for: the kernel's own. Plain MemFree would also count
# what the page cache and every other process on the machine take in the meantime.
kernel_kb() {
  awk '/^MemTotal:/ { kb = $2 }
    /^(MemFree|Buffers|Cached|SwapCached|AnonPages|SReclaimable):/ { kb -= $2 }
    END { print kb }' /proc/meminfo
}

before=$(kernel_kb)
for ((i = 1; i <= PODS; i++)); do
  cni ADD node1 "shop/many$i" >"$W/pods/many$i.json" 2>"$LOGS/add.log" || fail "ADD $i: $(cat "$W/pods/many$i.json" "$LOGS/add.log")"
done
sleep 1
kernel=$(($(kernel_kb) - before))
expect 'pod ports' "$(value node1 '[.ports[] | select(.kind == "pod")] | length')" -eq "$PODS"

pss=0
for role in keeper dataplane agent; do
  one=$(awk '/^Pss_Anon:|^Pss_File:/ { kb += $2 } END { print kb }' /proc/"$(pid_of node1 $role)"/smaps_rollup)
  say "$role: $one kB beside the memfd"
  pss=$((pss + one))
done
memfd=$(stat -L -c '%s' /proc/"$(pid_of node1 keeper)"/fd/* 2>/dev/null | sort -n | tail -1)
memfd=$((memfd / 1024))
total=$((pss + memfd + kernel))
say "$PODS pods: processes $pss kB, memfd $memfd kB, kernel $kernel kB: $((total / 1024)) MiB"
expect 'kB with all ports attached' "$total" -lt $LIMIT_KB
ping_ok many1 "$(ip4 "many$PODS")"
