#!/bin/sh
# services.sh WORK OUT - nginx, redis and sqlite behind a network interface, and a busybox shell on ttyS0; "poweroff -f" ends it
#
#   80    nginx: files 1k, 64k, 1m and 4m of MINSTD in hexadecimal
#   6379  redis-server, in memory
#   5432  sqlite3 on the disk, a process a connection: SQL in, rows out; a commit is answered when it is on the disk
#
# The kernel command line says how the interface is set up: net=ADDRESS/PREFIX[,GATEWAY], or net=dhcp, the default.
. "$(dirname "$0")/initramfs.sh"
get_kernel cloud

TREE=$WORK/tree-services
if [ ! -e "$TREE.done" ]; then
    rm -rf "$TREE"
    say "unpacking nginx, redis, sqlite3, socat"
    mmdebstrap --quiet --variant=extract --architectures=amd64 \
        --include=nginx-light,redis-server,sqlite3,socat bookworm "$TREE" >&2
    # The whole tree sits in the guest's RAM: only what the services need may stay.
    (
        cd "$TREE"
        rm -rf var boot home media opt srv run root dev proc sys tmp mnt etc/apt etc/nginx/sites-enabled
        rm -rf usr/share usr/bin/perl* usr/lib/systemd usr/lib/udev usr/lib/apt usr/include
        rm -rf usr/lib/x86_64-linux-gnu/gconv usr/lib/x86_64-linux-gnu/perl* usr/lib/x86_64-linux-gnu/libperl*
    )
    touch "$TREE.done"
fi
start_guest services
use_tree "$TREE"
DISK=virtio
INPUT=serial
MEM=320
add_modules virtio_pci virtio_blk virtio_net ext4
# As in shell.sh: the editor's question where the cursor is would be answered by the user's terminal.
sed -i 's/\x1b\[6n/\x00[6n/' "$ROOT/bin/busybox"

mkdir -p "$ROOT/www" "$ROOT/etc/nginx" "$ROOT/var/log/nginx" "$ROOT/var/lib/nginx" "$ROOT/run"
awk 'BEGIN {
    s = 7
    for (i = 0; i < 524288; i++) {
        s = (s * 16807) % 2147483647
        printf "%08x", s
    }
}' > "$ROOT/www/4m"
for file in 1k:1024 64k:65536 1m:1048576; do
    head -c "${file#*:}" "$ROOT/www/4m" > "$ROOT/www/${file%:*}"
done
echo 'root:x:0:0::/:/bin/sh' > "$ROOT/etc/passwd"
echo 'root:x:0:' > "$ROOT/etc/group"
cat > "$ROOT/etc/nginx/nginx.conf" <<'U'
user root;
worker_processes 1;
error_log /dev/ttyS0 crit;
pid /run/nginx.pid;
events { worker_connections 256; }
http {
    access_log off;
    sendfile on;
    keepalive_timeout 3600;
    keepalive_requests 1000000;
    default_type application/octet-stream;
    server {
        listen 80;
        root /www;
    }
}
U
cat > "$ROOT/dhcp.sh" <<'U'
#!/bin/busybox sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr flush dev "$interface"
ip addr add "$ip/$mask" dev "$interface"
for gateway in $router; do
    ip route add default via "$gateway" dev "$interface"
done
U
chmod +x "$ROOT/dhcp.sh"

SEED=$OUT/seed
mkdir -p "$SEED"
touch -d "$FILE_TIME" "$SEED"
make_disk 64M "$SEED" 5
rm -rf "$SEED"
early_init <<'P'
wait_for() {
    w_tries=0
    while ! "$@" >/dev/null 2>&1 && [ $w_tries -lt 100 ]; do
        sleep 0.1
        w_tries=$((w_tries + 1))
    done
}
echo "@BEGIN $NAME"
wait_for [ -e /dev/vda ]
mount -t ext4 /dev/vda /mnt
ip link set lo up
wait_for [ -e /sys/class/net/eth0 ]
ip link set eth0 up
net=dhcp
for word in $(cat /proc/cmdline); do
    case $word in net=*) net=${word#net=} ;; esac
done
case $net in
    dhcp) udhcpc -q -n -f -i eth0 -s /dhcp.sh >/dev/null 2>&1 || echo "@INFO no answer by DHCP" ;;
    *)
        ip addr add "${net%,*}" dev eth0
        case $net in *,*) ip route add default via "${net#*,}" dev eth0 ;; esac
        ;;
esac
sqlite3 /mnt/rows.db 'PRAGMA synchronous=FULL; CREATE TABLE rows(id INTEGER PRIMARY KEY, v TEXT);'
# What is committed before the answer must be on the disk: every connection says so anew.
echo 'PRAGMA synchronous=FULL;' >/tmp/.sqliterc
socat TCP-LISTEN:5432,fork,reuseaddr,nodelay EXEC:'sqlite3 -batch /mnt/rows.db' &
redis-server --save "" --bind 0.0.0.0 --protected-mode no --dir /tmp --daemonize yes >/dev/null 2>&1
wait_for sh -c 'netstat -ltn | grep -q :6379'
nginx
wait_for sh -c 'netstat -ltn | grep -q :80'
echo "@OUT $NAME services $(netstat -ltn | awk '/LISTEN/ { n = split($4, a, ":"); print a[n] }' | sort -nu | paste -sd " ")"
echo "@INFO $NAME address $(ip -4 addr show eth0 | awk '/inet/ { print $2 }')"
export PS1='gemel# ' HOME=/ TERM=vt100
stty cols 200 rows 50 </dev/ttyS0
while :; do
    setsid cttyhack sh
done
P
finish_guest
