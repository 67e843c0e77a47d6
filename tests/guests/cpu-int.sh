#!/bin/sh
# cpu-int.sh WORK OUT - integer work in user space: generate text, hash, compress, decompress, sort, search
. "$(dirname "$0")/initramfs.sh"
get_kernel cloud
start_guest cpu-int
payload <<'P'
gen() {
    # MINSTD, so that the text is the same everywhere.
    awk 'BEGIN {
        s = 42
        for (i = 0; i < 160000; i++) {
            s = (s * 16807) % 2147483647
            printf "%08x%s", s, (i % 8 == 7) ? "\n" : " "
        }
    }' >/tmp/a
}
step generate gen
step sha256 sh -c 'for i in $(seq 32); do cat /tmp/a; done | sha256sum >/tmp/h1'
step md5 sh -c 'for i in $(seq 32); do cat /tmp/a; done | md5sum >/tmp/h2'
step gzip sh -c 'gzip -9 -c /tmp/a >/tmp/a.gz'
step gunzip sh -c 'for i in $(seq 8); do gunzip -c /tmp/a.gz; done | md5sum >/tmp/h3'
step bzip2 sh -c 'bzip2 -9 -c /tmp/a >/tmp/a.bz2'
step bunzip2 sh -c 'bunzip2 -c /tmp/a.bz2 | md5sum >/tmp/h4'
step sort sh -c 'sort /tmp/a | md5sum >/tmp/h5'
step grep sh -c 'grep -c "a[0-9]*b.*7f" /tmp/a >/tmp/h6'
for f in 1 2 3 4 5 6; do
    out "h$f $(cat /tmp/h$f)"
done
out "bz2 $(md5sum </tmp/a.bz2)"
P
finish_guest
