#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that are missing, and only those.
#   setup.sh GROUP...      groups: build, test, demo, bench
set -euo pipefail

declare -A packages=(
  [bench]='bpftool busybox-static clang ethtool gcc iperf3 iproute2 iptables iputils-ping jq
           linux-libc-dev nftables openvswitch-switch procps util-linux'
  [build]='clang gcc libc6-dev libelf-dev linux-libc-dev make pkg-config zlib1g-dev'
  [demo]='ethtool iperf3 iproute2 iputils-ping jq nftables procps util-linux'
  [test]='bpftool busybox-static chromium conntrack containerd containernetworking-plugins ethtool
          fonts-dejavu-core iperf3 iproute2 iptables iputils-ping jq nftables procps runc socat tcpdump
          traceroute tshark util-linux'
)

missing=()
for group in "$@"; do
  [[ -n ${packages[$group]:-} ]] || { echo "setup.sh: no group $group (build, test, demo, bench)" >&2; exit 2; }
  for package in ${packages[$group]}; do
    # Docker's own packages bring these under other names, and would have to go.
    [[ $package == @(containerd|runc) ]] && command -v "$package" >/dev/null && continue
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
done

if ((${#missing[@]})); then
  echo "installing: ${missing[*]}"
  ((EUID == 0)) || { echo "not root; run: sudo apt-get install -y ${missing[*]}" >&2; exit 1; }
  export DEBIAN_FRONTEND=noninteractive
  install=(apt-get install -y -qq --no-install-recommends "${missing[@]}")
  # Package lists may be absent (images) or older than the archive: refresh them and try again.
  "${install[@]}" </dev/null >/dev/null 2>&1 ||
    { apt-get update -qq </dev/null >/dev/null && "${install[@]}" </dev/null >/dev/null; }
fi

if ! PATH="$HOME/.cargo/bin:$PATH" command -v cargo >/dev/null; then
  cat >&2 <<'TEXT'
cargo is missing. weft is built with the Rust release named in rust-toolchain.toml, which rustup
fetches by itself. Install rustup, then run the same command again:

  apt-get install -y curl ca-certificates
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain none
  . "$HOME/.cargo/env"
TEXT
  exit 1
fi
