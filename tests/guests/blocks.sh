#!/bin/sh
# blocks.sh WORK OUT - writes numbered blocks past the cache to its virtio disk until a line is typed, then reads all of them back
# Made for failover: "WROTE n" says that block n is complete, "SYNCED n" that every block up to n is flushed as well, which is so for
# each fourth. Block n has 4096 bytes, lies in the n-th place, and is the text "BLOCK n", blanks and a line feed.
. "$(dirname "$0")/initramfs.sh"
get_kernel cloud
start_guest blocks
DISK=virtio
INPUT=serial
add_modules virtio_pci virtio_blk
truncate -s 16M "$OUT/disk.raw"
payload <<'P'
DEV=/dev/vda
wait_dev $DEV
exec 3</dev/ttyS0
stty -echo <&3
{
    read -r line <&3
    touch /tmp/stop
} &
echo "@READY blocks"
n=0
while [ ! -e /tmp/stop ] && [ $n -lt 4096 ]; do
    n=$((n + 1))
    word=WROTE
    how=notrunc
    if [ $((n % 4)) = 0 ]; then
        word=SYNCED
        how=notrunc,fsync
    fi
    printf '%-4095s\n' "BLOCK $n" |
        dd of=$DEV bs=4096 seek=$((n - 1)) iflag=fullblock oflag=direct conv=$how 2>/tmp/said || word=FAILED
    echo "$word $n"
done
wait
echo "@INFO blocks $n"
dd if=$DEV bs=4096 count=$n iflag=direct 2>/dev/null |
    awk '$1 == "BLOCK" && $2 == NR { good++ } END { print good + 0 }' >/tmp/good
out "$(($(cat /tmp/good) - n)) wrong"
P
finish_guest
