#!/usr/bin/env bash
# Runs the smoke tests, all or those named, one after another; ends with `N passed, N failed`.
#   smoke/run.sh [NAME...]       e.g. smoke/run.sh ping storm
# In CI, where the machine is shared and a stall is nobody's fault, a test that fails has a second try
# (WEFT_TEST_TRIES); it is named in the last lines, with what the first one said above them.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
LIMIT_SECONDS=${WEFT_TEST_SECONDS:-240}
TRIES=${WEFT_TEST_TRIES:-$([[ ${CI:-} ]] && echo 2 || echo 1)}

if (($#)); then
  tests=("${@/%/_test.sh}")
else
  tests=()
  for file in "$here"/*_test.sh; do tests+=("${file##*/}"); done
fi

attempt() { # NAME: runs it once; prints how it went and says whether well
  local name=$1 output started took status verdict=PASS
  output=$(mktemp)
  started=$(date +%s%N)
  # In our process group, so that Ctrl-C ends it. SIGKILL cannot leave anything behind either, because
  # its namespaces go with it.
  timeout --foreground --signal=KILL "$LIMIT_SECONDS" "$here/${name}_test.sh" </dev/null >"$output" 2>&1
  status=$?
  took=$((($(date +%s%N) - started) / 100000000))
  ((status == 0)) || verdict=FAIL
  ((status != 137)) || echo "FAIL: killed after $LIMIT_SECONDS s" >>"$output"
  printf '%s %-14s %6s s\n' "$verdict" "$name" "$((took / 10)).$((took % 10))"
  sed 's/^/     /' "$output"
  rm -f "$output"
  return "$status"
}

# A test may fail of Ctrl-C before its own trap sees it: no second try then either.
interrupted=
trap 'interrupted=1' INT

passed=0 failed=() flaky=()
for test in "${tests[@]}"; do
  name=${test%_test.sh}
  [[ -f $here/$test ]] || { echo "no smoke test $name; there are:"; ls "$here" | sed -n 's/_test.sh//p'; exit 2; }
  for ((try = 1; try <= TRIES; try++)); do
    attempt "$name"
    status=$?
    [[ $status -eq 0 || $interrupted ]] && break
  done
  if ((status == 0)); then
    passed=$((passed + 1))
    ((try == 1)) || flaky+=("$name")
  else
    failed+=("$name")
  fi
  [[ -z $interrupted ]] || break
done

((${#flaky[@]} == 0)) || echo "passed on a second try only, look into it: ${flaky[*]}"
((${#failed[@]} == 0)) || echo "failed: ${failed[*]}"
[[ -z ${WEFT_RESULTS:-} ]] || echo "$passed ${#failed[@]}" >>"$WEFT_RESULTS"
echo "smoke tests: $passed passed, ${#failed[@]} failed"
[[ -z $interrupted ]] || exit 130
((${#failed[@]} == 0))
