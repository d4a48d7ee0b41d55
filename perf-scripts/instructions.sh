#!/bin/sh
# Instructions the pipeline takes per packet of 64 bytes, by callgrind. Other load does not change them.
# With an argument: where they go in that case, by line of the source.
set -eu
cd "$(dirname "$0")/.."
cargo bench --quiet -p weft-bench --bench instructions --no-run
bench=$(ls -t target/release/deps/instructions-* | grep -v '\.d$' | head -1)
out=$(mktemp -d)
trap 'rm -r "$out"' EXIT

# count CASE BATCHES: instructions of the pipeline.
count() {
    valgrind --tool=callgrind --callgrind-out-file="$out/profile" --dump-line=yes \
        --toggle-collect='weft_engine::pipeline::Pipeline::run' "$bench" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : //p'
}

if [ $# -gt 0 ]; then
    count "$1" 200 >"$out/total"
    callgrind_annotate --auto=yes --inclusive=no --threshold=99 "$out/profile"
    exit
fi
for case in forward/udp4_64B forward/udp6_64B forward/tcp4_64B encap/udp4_64B encap/udp6_64B \
    decap/udp4_64B decap/udp6_64B service/udp4_64B service/udp6_64B service/tcp4_64B \
    new/udp4_64B service_new/udp4_64B policy/udp4_64B_0_policies policy/udp4_64B_10k_policies \
    policy_new/udp4_64B_0_policies policy_new/udp4_64B_10k_policies; do
    few=$(count "$case" 5)
    many=$(count "$case" 25)
    printf '%-32s %5d\n' "$case" $(((many - few) / 1280))
done
