#!/bin/sh
# syscall.sh WORK OUT - about seven million short system calls, some of them through a pipe
. "$(dirname "$0")/initramfs.sh"
get_kernel cloud
start_guest syscall
payload <<'P'
step null-rw dd if=/dev/zero of=/dev/null bs=1 count=3000000
step pipe-rw sh -c 'dd if=/dev/zero bs=1 count=250000 2>/dev/null | dd of=/dev/null bs=1 2>/dev/null'
step stat sh -c 'i=0; while [ $i -lt 100000 ]; do [ -e /proc/self ]; i=$((i+1)); done'
out done
P
finish_guest
