#!/bin/sh
# boot.sh WORK OUT cloud|amd64|686|686-pae - a kernel boots to the first line of user space with its full log, then powers off
. "$(dirname "$0")/initramfs.sh"
FLAVOUR=${3:-cloud}
case $FLAVOUR in
    686*)
        ARCH=i386
        foreign_architecture i386
        ;;
    *) ARCH=amd64 ;;
esac
get_kernel "$FLAVOUR"
start_guest "boot-$FLAVOUR" "$ARCH"
CMDLINE_EXTRA=
payload <<'P'
out "hello from $(uname -m) $(uname -r)"
P
finish_guest
