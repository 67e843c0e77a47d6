#!/bin/sh
# pagefault.sh WORK OUT - kernel faults on fresh memory, first touch by user code, copy on write after fork, unmap and remap
. "$(dirname "$0")/initramfs.sh"
get_kernel cloud
script_tree
start_guest pagefault
use_tree "$TREE"
MEM=384
# One fault a page is the point: no huge pages.
CMDLINE_EXTRA="quiet transparent_hugepage=never"
payload <<'P'
cat >/tmp/pf.py <<'Y'
import os
# first touch of fresh memory, one byte a page, then unmap
n = 0
for r in range(14):
    m = bytearray(64 << 20)
    for i in range(0, 64 << 20, 4096):
        m[i] = 1
    n += len(m) >> 12
    del m
print('touched', n)
# copy on write in a child
m = bytearray(b'7' * (32 << 20))
for r in range(12):
    p = os.fork()
    if p == 0:
        for i in range(0, 32 << 20, 4096):
            m[i] = 9
        os._exit(0)
    os.waitpid(p, 0)
print('cow sum', sum(m[i] for i in range(0, 32 << 20, 4096)))
Y
kernel_touch() {
    i=0
    while [ $i -lt 16 ]; do
        dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null
        i=$((i + 1))
    done
}
step kernel-touch kernel_touch
step user-touch-and-cow sh -c 'python3 -S /tmp/pf.py >/tmp/h1'
out $(cat /tmp/h1)
P
finish_guest
