#!/bin/sh
# disk.sh WORK OUT virtio - raw and file reads, fsync, direct writes, random reads and a database on an ext4 disk of 256 MiB
. "$(dirname "$0")/initramfs.sh"
BUS=${3:-virtio}
get_kernel cloud
script_tree
start_guest "disk-$BUS"
use_tree "$TREE"
DISK=$BUS
MEM=384
case $BUS in
    virtio) add_modules virtio_pci virtio_blk ext4 ;;
    *)
        say "unknown disk bus $BUS"
        exit 2
        ;;
esac
SEED=$OUT/seed
mkdir -p "$SEED"
# 32 MB of MINSTD in hexadecimal
awk 'BEGIN {
    s = 7
    for (i = 0; i < 4000000; i++) {
        s = (s * 16807) % 2147483647
        printf "%08x", s
    }
}' > "$SEED/seed.txt"
touch -d "$FILE_TIME" "$SEED" "$SEED/seed.txt"
make_disk 256M "$SEED" 1
rm -rf "$SEED"
payload <<'P'
DEV=/dev/vda
wait_dev $DEV
drop() {
    sync
    echo 3 >/proc/sys/vm/drop_caches
}
write_small() {
    i=0
    while [ $i -lt 600 ]; do
        dd if=/proc/self/exe of=/mnt/s$((i % 50)) bs=4k count=1 conv=fsync 2>/dev/null
        i=$((i + 1))
    done
}
cat >/tmp/rnd.py <<'Y'
f = open('/mnt/seed.txt', 'rb', 0)
s = 1
t = 0
for i in range(6000):
    s = s * 16807 % 2147483647
    f.seek(s % 7800 * 4096)
    t += f.read(4096)[s % 4096]
print(t)
Y
{
    echo "PRAGMA synchronous=FULL;"
    echo "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);"
    echo "CREATE INDEX tv ON t(v);"
    i=0
    while [ $i -lt 500 ]; do
        echo "INSERT INTO t(v) VALUES('row-$((i * 7919 % 1000))');"
        i=$((i + 1))
    done
    echo "BEGIN;"
    echo "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<20000)"
    echo "INSERT INTO t(v) SELECT 'bulk-'||(x*7919%20011) FROM c;"
    echo "COMMIT;"
    echo "SELECT count(*), sum(length(v)), min(v), max(v) FROM t;"
    echo "PRAGMA integrity_check;"
} >/tmp/q.sql
step mount mount -t ext4 $DEV /mnt
step read-raw sh -c "dd if=$DEV of=/dev/null bs=1M count=160 2>/dev/null"
drop
step read-file sh -c 'dd if=/mnt/seed.txt of=/dev/null bs=128k 2>/dev/null'
drop
step verify sh -c 'md5sum </mnt/seed.txt >/tmp/h1'
step write-seq sh -c 'dd if=/dev/zero of=/mnt/w1 bs=1M count=128 conv=fsync 2>/dev/null'
step write-small-fsync write_small
step write-direct sh -c 'dd if=/mnt/seed.txt of=/mnt/w2 bs=4k count=6000 oflag=direct 2>/dev/null'
drop
step read-random sh -c 'python3 -S /tmp/rnd.py >/tmp/h2'
step sqlite sh -c 'sqlite3 /mnt/t.db </tmp/q.sql >/tmp/h3'
out "rnd $(cat /tmp/h2)"
out "seed $(cat /tmp/h1)"
out "sql $(tr '\n' ' ' </tmp/h3)"
step umount umount /mnt
P
finish_guest
