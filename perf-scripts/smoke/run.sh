#!/usr/bin/env bash
# Runs the smoke tests, all or those named, one after another; ends with `N passed, N failed`.
#   smoke/run.sh [NAME...]       e.g. smoke/run.sh ping storm
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
LIMIT_SECONDS=${WEFT_TEST_SECONDS:-240}

if (($#)); then
  tests=("${@/%/_test.sh}")
else
  tests=()
  for file in "$here"/*_test.sh; do tests+=("${file##*/}"); done
fi

passed=0 failed=()
for test in "${tests[@]}"; do
  name=${test%_test.sh}
  [[ -f $here/$test ]] || { echo "no smoke test $name; there are:"; ls "$here" | sed -n 's/_test.sh//p'; exit 2; }
  output=$(mktemp)
  started=$(date +%s%N)
  # In a session of its own nothing it does reaches our terminal; SIGKILL cannot leave anything
  # behind either, because its namespaces go with it.
  timeout --signal=KILL "$LIMIT_SECONDS" "$here/$test" </dev/null >"$output" 2>&1
  status=$?
  took=$((($(date +%s%N) - started) / 100000000))
  took=$((took / 10)).$((took % 10))
  if ((status == 0)); then
    passed=$((passed + 1))
    printf 'PASS %-14s %6s s\n' "$name" "$took"
    sed 's/^/     /' "$output"
  else
    failed+=("$name")
    ((status != 137)) || echo "FAIL: killed after $LIMIT_SECONDS s" >>"$output"
    printf 'FAIL %-14s %6s s\n' "$name" "$took"
    sed 's/^/     /' "$output"
  fi
  rm -f "$output"
  ((status != 130)) || break
done

((${#failed[@]} == 0)) || echo "failed: ${failed[*]}"
[[ -z ${WEFT_RESULTS:-} ]] || echo "$passed ${#failed[@]}" >>"$WEFT_RESULTS"
echo "smoke tests: $passed passed, ${#failed[@]} failed"
((${#failed[@]} == 0))
