#!/usr/bin/env bash
# Runs fuzz targets, one after another, each from its committed corpus; what they find stays in
# target/fuzz. Needs a nightly toolchain and cargo-fuzz (cargo install --locked cargo-fuzz).
#   run.sh SECONDS [TARGET...]
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:?how many seconds for each?}
shift
declare -A corpus=(
  [capture_file]=../../control/cli/corpus/capture_file
  [cni_request]=../../cni/tests/corpus
  [control_message]=../../control/api/corpus/message
  [keeper_message]=../keeper/corpus/message
  [manifest]=../../control/model/corpus/manifest
  [pipeline_no_leak]=../engine/corpus
  [policy]=../../control/model/corpus/manifest
  [wire_parse]=../wire/corpus
)
(($#)) || set -- "${!corpus[@]}"

for target in "$@"; do
  found=target/fuzz/$target
  mkdir -p "$found"
  echo "== $target, $seconds s"
  # What is new goes into the first directory; the committed one is only read.
  features=()
  [[ $target != manifest && $target != policy ]] || features=(--features manifest)
  cargo +nightly fuzz run --fuzz-dir . "${features[@]}" "$target" "$found" "${corpus[$target]}" -- \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -print_final_stats=1
done
