#!/usr/bin/env bash
# Smoke tests on Debian's own, older kernel: a virtual machine whose disk is this one's, read only, with
# everything written going to its memory. It is emulated, some twenty times slower than the machine.
#   old-kernel.sh [NAME...]       e.g. old-kernel.sh ping tcp_udp restart; default: first_ping tcp_udp
#   WEFT_ACCEL=kvm                where that works: fast
#   WEFT_KERNEL=linux-image-...   which package; default: what linux-image-amd64 stands for
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$root/target/kernel
tests=("$@")
((${#tests[@]})) || tests=(first_ping tcp_udp)
((EUID == 0)) || { echo 'needs root (it installs packages)' >&2; exit 1; }

need() { # COMMAND PACKAGE
  command -v "$1" >/dev/null || apt-get install -y -qq --no-install-recommends "$2" >/dev/null
}
need qemu-system-x86_64 qemu-system-x86
need cpio cpio
need busybox busybox-static
need depmod kmod

package=${WEFT_KERNEL:-$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)}
[[ $package ]] || { echo 'no kernel package found: run apt-get update, or set WEFT_KERNEL' >&2; exit 1; }
tree=$work/$package
if [[ ! -d $tree/lib/modules ]]; then
  echo "fetching $package"
  mkdir -p "$work/debs"
  (cd "$work/debs" && apt-get download -qq "$package" 2>/dev/null)
  dpkg -x "$work/debs/$package"_*.deb "$tree"
fi
release=$(ls "$tree/lib/modules")
depmod -b "$tree" "$release"

# ---- a first file system that finds the disk ----------------------------------------------------
first=$work/first
rm -rf "$first"
mkdir -p "$first"/{bin,dev,proc,sys,disk,own,new,modules}
cp "$(command -v busybox)" "$first/bin/busybox"
mapfile -t modules < <(for name in virtio_pci virtio_console 9pnet_virtio 9p overlay; do
  modprobe -d "$tree" -S "$release" --show-depends "$name"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }')
cp "${modules[@]}" "$first/modules/"
{
  echo '#!/bin/busybox sh'
  echo '/bin/busybox --install -s /bin; export PATH=/bin'
  echo 'mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev'
  for module in "${modules[@]}"; do echo "insmod /modules/${module##*/}"; done
  echo 'mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,ro,cache=loose disk /disk'
  echo 'mount -t tmpfs t /own; mkdir /own/upper /own/work'
  echo 'mount -t overlay -o lowerdir=/disk,upperdir=/own/upper,workdir=/own/work o /new'
  echo 'for it in proc sys dev; do mount --move /$it /new/$it; done'
  echo "exec switch_root /new /bin/bash $work/inside.sh"
} >"$first/init"
chmod +x "$first/init"
(cd "$first" && find . | cpio --quiet -oH newc | gzip -1) >"$work/first.gz"

cat >"$work/inside.sh" <<INSIDE
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root WEFT_TEST_SECONDS=1200
mount -t tmpfs t /run; mount -t tmpfs t /tmp; mount -t bpf b /sys/fs/bpf; mount -t cgroup2 c /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm; mount -t devpts d /dev/pts; mount -t tmpfs t /dev/shm
mkdir -p /lib/modules; ln -sfn $tree/lib/modules/$release /lib/modules/$release
modprobe -a veth vxlan bridge nf_tables nft_masq nft_ct nft_chain_nat
ip link set lo up; echo "Linux \$(uname -r)"
WEFT_BIN_DIR=${WEFT_BIN_DIR:-} $root/perf-scripts/smoke/run.sh ${tests[*]}
echo "status: \$?"; sync; busybox poweroff -f
INSIDE

qemu-system-x86_64 -M q35 -cpu max -accel "${WEFT_ACCEL:-tcg,thread=multi}" -smp 2 -m 3072 -nographic -no-reboot -nic none \
  -kernel "$tree/boot/vmlinuz-$release" -initrd "$work/first.gz" -append 'console=ttyS0 quiet panic=-1 mitigations=off' \
  -virtfs "local,path=/,mount_tag=disk,security_model=none,readonly=on,multidevs=remap" </dev/null |
  stdbuf -oL tr -d '\r' | tee "$work/log" | sed -n '/Linux [0-9]/,$p'
grep -qx 'status: 0' "$work/log"
