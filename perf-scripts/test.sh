#!/usr/bin/env bash
# `make test`: cargo tests, then smoke tests, and one line for both at the end. A failure of the
# first does not hide what the second would have said.
set -uo pipefail
here=$(dirname "$0")
WEFT_RESULTS=$(mktemp)
export WEFT_RESULTS
trap 'rm -f "$WEFT_RESULTS"' EXIT

status=0
"$here/cargo-tests.sh" || status=1
"$here/smoke/run.sh" || status=1
awk '{ p += $1; f += $2 } END { printf "%d passed, %d failed\n", p, f }' "$WEFT_RESULTS"
exit "$status"
