#!/bin/sh
# apps.sh WORK OUT run|systemd - a Debian root file system on a virtio disk of 1 GiB
#   run      redis, nginx, gcc, sqlite3, python3, tar and xz under a plain init script
#   systemd  the same disk booted by systemd to multi-user.target with redis and nginx as services, then power off
. "$(dirname "$0")/initramfs.sh"
VARIANT=${3:-run}
get_kernel cloud
start_guest "apps-$VARIANT"
DISK=virtio
MEM=768
add_modules virtio_pci virtio_blk ext4

report_service() {
    cat <<'U'
[Unit]
Description=report and power off
After=multi-user.target redis-server.service nginx.service

[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/ttyS0
ExecStart=/report.sh

[Install]
WantedBy=graphical.target
U
}

report_script() {
    cat <<'U'
#!/bin/sh
read up idle </proc/uptime
echo "@STEP apps-systemd uptime-at-multi-user $up"
echo "@BEGIN apps-systemd"
echo "@OUT apps-systemd redis $(redis-cli ping)"
echo "@OUT apps-systemd failed-units $(systemctl --failed --no-legend | wc -l)"
echo "@END apps-systemd 0"
systemctl poweroff --no-block
U
}

run_script() {
    cat <<'P'
#!/bin/sh
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
export LC_ALL=C PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc 2>/dev/null
mount -t sysfs sys /sys 2>/dev/null
mount -t tmpfs tmp /run
mount -t tmpfs tmp /tmp
ip link set lo up
NAME=apps-run

step() {
    s_name=$1
    shift
    read s_from s_idle </proc/uptime
    "$@"
    read s_to s_idle </proc/uptime
    echo "@STEP $NAME $s_name $(echo "$s_from $s_to" | awk '{ printf "%.2f", $2 - $1 }')"
}
out() {
    echo "@OUT $NAME $*"
}

redis_start() {
    redis-server --save "" --daemonize yes --dir /tmp >/dev/null 2>&1
    i=0
    while [ "$(redis-cli ping 2>/dev/null)" != PONG ] && [ $i -lt 100 ]; do
        sleep 0.1
        i=$((i + 1))
    done
}
redis_load() {
    redis-benchmark -q -n 15000 -c 8 -t set,get,lpush,incr --csv >/tmp/redis
}
web() {
    mkdir -p /run/nginx /var/log/nginx
    head -c 20000 /usr/bin/awk >/var/www/html/f.bin
    nginx
    sleep 0.5
    python3 >/tmp/web <<'Y'
import http.client
c = http.client.HTTPConnection("127.0.0.1", 80)
n = 0
for i in range(500):
    c.request("GET", "/f.bin")
    n += len(c.getresponse().read())
print(n)
Y
}
compile() {
    python3 >/tmp/p.c <<'Y'
for i in range(70):
    print("int f%d(int n,double*a){int s=0;for(int i=0;i<n;i++){switch((i*%d)&7){case 0:s+=i;break;"
          "case 3:s^=a[i]>%d;break;default:s=s*31+i%%%d;}}return s;}" % (i, i * 2 + 1, i, i + 3))
print("#include <stdio.h>\nint main(){double a[100];int s=0;for(int i=0;i<100;i++)a[i]=i*0.7;")
for i in range(70):
    print("s^=f%d(100,a);" % i)
print("printf(\"%08x\\n\",s);return 0;}")
Y
    gcc -O2 -o /tmp/p /tmp/p.c && /tmp/p >/tmp/gcc
}
sql() {
    rm -f /root/t.db
    sqlite3 /root/t.db >/tmp/sql <<'Q'
PRAGMA synchronous=FULL;
CREATE TABLE t(a INTEGER PRIMARY KEY,b TEXT);
BEGIN;
WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<60000)
INSERT INTO t(b) SELECT printf('%x',x*2654435761%4294967296) FROM c;
COMMIT;
CREATE INDEX i ON t(b);
SELECT count(*),min(b),max(b) FROM t WHERE b LIKE '7%';
Q
}
py() {
    python3 >/tmp/py <<'Y'
import hashlib
import json
import re
d = {str(i): [i * j % 97 for j in range(20)] for i in range(2500)}
s = json.dumps(d)
e = json.loads(s)
r = len(re.findall(r"\b(\d)\d\b", s))
t = sorted((hash(str(v)), k) for k, v in e.items())
print(len(s), r, hashlib.sha256(s.encode()).hexdigest()[:16])
Y
}
pack() {
    tar -C /usr/lib/python3.11 --sort=name --mtime=@0 -cf - json email logging xml | xz -1 -T1 | wc -c >/tmp/txz
}

read up idle </proc/uptime
echo "@STEP $NAME uptime-at-init $up"
echo "@BEGIN $NAME"
step redis-start redis_start
step redis-benchmark redis_load
step nginx web
step gcc compile
step sqlite sql
step python py
step tar-xz pack
out "keys $(redis-cli dbsize)"
out "web $(cat /tmp/web)"
out "gcc $(cat /tmp/gcc)"
out "sql $(cat /tmp/sql)"
out "py $(cat /tmp/py)"
out "txz $(cat /tmp/txz)"
sed 's/^/@INFO redis /' /tmp/redis
echo "@END $NAME 0"
redis-cli shutdown nosave 2>/dev/null
sync
mount -o remount,ro / 2>/dev/null
echo o >/proc/sysrq-trigger
sleep 5
P
}

# The root goes through a tree of its own: both variants boot the same files.
TREE=$WORK/tree-apps
if [ ! -e "$TREE.done" ]; then
    rm -rf "$TREE"
    say "unpacking a Debian root with systemd, redis, nginx and gcc"
    mmdebstrap --quiet --variant=minbase --architectures=amd64 \
        --include=systemd-sysv,udev,dbus,iproute2,procps,sqlite3,python3,nginx-light,redis-server,redis-tools,gcc,libc6-dev,xz-utils \
        bookworm "$TREE" >&2
    (
        cd "$TREE"
        rm -rf usr/share/doc/* usr/share/man/* usr/share/locale/* usr/share/info/* var/lib/apt/lists/* var/cache/apt/*
    )
    echo guest > "$TREE/etc/hostname"
    : > "$TREE/etc/fstab"
    # The cloud kernel of the guest is run without IPv6.
    sed -i '/\[::\]/d' "$TREE/etc/nginx/sites-available/default"
    touch "$TREE.done"
fi
run_script > "$TREE/apps.sh"
report_script > "$TREE/report.sh"
chmod +x "$TREE/apps.sh" "$TREE/report.sh"
report_service > "$TREE/etc/systemd/system/report.service"
mkdir -p "$TREE/etc/systemd/system/graphical.target.wants"
ln -sf ../report.service "$TREE/etc/systemd/system/graphical.target.wants/report.service"
make_disk 1G "$TREE" 3

case $VARIANT in
    run) INIT=/apps.sh ;;
    systemd)
        INIT=/sbin/init
        CMDLINE_EXTRA="quiet systemd.show_status=0"
        ;;
esac
early_init <<P
tries=0
while [ ! -e /dev/vda ] && [ \$tries -lt 100 ]; do
    sleep 0.1
    tries=\$((tries + 1))
done
mount -t ext4 /dev/vda /mnt && mount --move /dev /mnt/dev && umount /sys /proc && exec switch_root /mnt $INIT
echo "@END $NAME 1"
poweroff -f
P
finish_guest
