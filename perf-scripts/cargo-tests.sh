#!/usr/bin/env bash
# Runs the workspace's tests, each in a process of its own: tests that need root unshare namespaces
# in-process, which two tests of one process must not do to each other. cargo-nextest works that
# way; where it is not installed this script does the same with what cargo alone gives.
#   cargo-tests.sh [cargo selection, e.g. -p weft-engine]
set -euo pipefail
cd "$(dirname "$0")/.."
(($#)) || set -- --workspace

count() { # passed failed
  echo "cargo tests: $1 passed, $2 failed"
  [[ -z ${WEFT_RESULTS:-} ]] || echo "$1 $2" >>"$WEFT_RESULTS"
  (($2 == 0))
}

doctests() {
  cargo test --locked --quiet --doc "$@" </dev/null >"$log" 2>&1 ||
    grep -q 'no library targets found' "$log" || { cat "$log"; return 1; }
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT

if command -v cargo-nextest >/dev/null; then
  status=0
  profile=$([[ ${CI:-} ]] && echo ci || echo default)
  cargo nextest run --locked --no-fail-fast --profile "$profile" "$@" 2>&1 | tee "$log" || status=1
  summary=$(sed 's/\x1b\[[0-9;]*m//g' "$log" | grep -E '^ *Summary ' | tail -1)
  number() { sed -nE "s/.* ([0-9]+) $1.*/\\1/p; t; s/.*/0/p" <<<"$summary"; }
  passed=$(number passed)
  failed=$(($(number failed) + $(number 'timed out')))
  ((status == 0 || failed > 0)) || failed=1
  doctests "$@" || failed=$((failed + 1))
  count "$passed" "$failed"
  exit
fi

echo 'cargo-nextest is not installed: running each test on its own, one after another'
artifacts=$(cargo test --locked "$@" --no-run --message-format=json-render-diagnostics </dev/null |
  jq -r 'select(.profile.test? and .executable) | [.executable, (.manifest_path | sub("/Cargo.toml$"; ""))] | @tsv')
tries=$([[ ${CI:-} ]] && echo 2 || echo 1)
attempt() { # DIR BINARY NAME: in CI also a second time
  local try
  for ((try = 1; try <= tries; try++)); do
    if (cd "$1" && CARGO_MANIFEST_DIR=$1 timeout -k 5 300 "$2" --exact "$3" </dev/null) >"$log" 2>&1; then
      ((try == 1)) || echo "flaky: ${2##*/} $3"
      return 0
    fi
  done
  return 1
}

passed=0 failed=0
while IFS=$'\t' read -r binary dir; do
  while read -r name; do
    if attempt "$dir" "$binary" "$name"; then
      passed=$((passed + 1))
    else
      failed=$((failed + 1))
      echo "FAIL ${binary##*/} $name"
      cat "$log"
    fi
  done < <("$binary" --list --format terse 2>/dev/null | sed -n 's/: test$//p')
done <<<"$artifacts"
doctests "$@" || failed=$((failed + 1))
count "$passed" "$failed"
