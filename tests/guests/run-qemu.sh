#!/bin/sh
# run-qemu.sh GUEST_DIR [QEMU ARGUMENTS...] - a reference run of a built guest under QEMU (TCG); serial output on stdout
# Needs: apt-get install qemu-system-x86. SERIAL and ACCEL override QEMU's -serial stdio and -accel tcg.
set -eu
DIR=$1
shift
mem=
disk=
# shellcheck source=/dev/null
. "$DIR/machine"
if [ "$disk" = virtio ]; then
    set -- "$@" -drive "file=$DIR/disk.raw,format=raw,if=virtio,snapshot=on"
fi
exec qemu-system-x86_64 -M pc -accel "${ACCEL:-tcg}" -display none -no-reboot -nic none -monitor none \
    -serial "${SERIAL:-stdio}" -m "$mem" \
    -kernel "$DIR/kernel" -initrd "$DIR/initrd" -append "$(cat "$DIR/cmdline")" "$@"
