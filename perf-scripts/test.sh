#!/usr/bin/env bash
# `make test`: cargo tests, then smoke tests, and one line for both at the end. A failure of the
# first does not hide what the second would have said. Whoever sets WEFT_RESULTS gets the counts
# in that file too, a line `PASSED FAILED` from each.
set -uo pipefail
here=$(dirname "$0")
results=$(mktemp)
trap 'rm -f "$results"' EXIT

status=0
WEFT_RESULTS=$results "$here/cargo-tests.sh" || status=1
WEFT_RESULTS=$results "$here/smoke/run.sh" || status=1
[[ -z ${WEFT_RESULTS:-} ]] || cat "$results" >>"$WEFT_RESULTS"
awk '{ p += $1; f += $2 } END { printf "%d passed, %d failed\n", p, f }' "$results"
exit "$status"
