#!/usr/bin/env bash
# The benchmark itself, as short as it gets: its datapaths come up, every kind of test gives a result
# or a reason, and the file has the fields other tools read. How fast anything is is not judged.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
OUT=$(mktemp -d)
trap 'rm -rf "$OUT"' EXIT

WEFT_BENCH_OUT=$OUT "$here/../run/matrix.sh" --quick --tests dts,dus,sts,sus,ext-rx,rr,rr-pinned,crr,pps64 \
  --datapaths weft,kernel-bridge,kernel-ebpf,kernel-vxlan,kernel-iptables,kernel-nftables >"$OUT/tables.md" 2>"$OUT/log" ||
  { tail -n 20 "$OUT/log"; exit 1; }

check() { # WHAT JQ-CONDITION
  jq -e "$2" "$OUT/matrix.json" >/dev/null || { echo "FAIL: $1"; tail -n 40 "$OUT/log"; exit 1; }
}
check 'layout' '.schema == 1 and (.host.kernel | length > 0)'
check 'fields' 'all(.results[]; has("datapath") and has("placement") and has("wire_mtu") and has("test")
  and has("unit") and has("runs") and has("median") and has("lost_pct") and has("retransmits")
  and has("cpu_cores") and has("memory_bytes"))'
check 'a median or a reason' 'all(.results[]; .median > 0 or (.failures | length > 0))'
check 'weft ran everywhere' '[.results[] | select(.datapath == "weft" and .median != null)
  | "\(.placement) \(.wire_mtu) \(.test)"] | length == 20'
check 'peers ran' '[.results[] | select(.datapath != "weft" and .median != null) | .datapath] | unique | length == 5'
check 'memory of weft alone' 'all(.results[]; (.datapath == "weft") == (.memory_bytes != null))'
for cell in dts sts; do
  grep -q "data-cell=\"cross-node/9000/$cell\"" "$OUT/report.html" || { echo "FAIL: no page, or no $cell"; exit 1; }
done
grep -q '^| weft |' "$OUT/tables.md" || { echo 'FAIL: no tables'; exit 1; }
jq -r '"\(.results | length) results in \(.method.took_seconds | round) s, \([.results[].failures[]] | length) runs failed"' \
  "$OUT/matrix.json"
