# initramfs.sh - what every guest builder here does alike: fetch Debian packages, fill an initramfs, pack it. Sourced.
#
# Not responsible for installing what the host needs, for deciding whether a guest is up to date, for locking. build.sh is.
#
# A builder is called as   NAME.sh WORK OUT [VARIANT]
#   WORK   keeps downloads that guests share: kernel-*, busybox*, tree-*. Delete it to start afresh.
#   OUT    an empty folder, in which it leaves
#     kernel     a Linux bzImage from a Debian package
#     initrd     a newc cpio, gzipped or not
#     cmdline    the kernel command line
#     machine    key=value lines: mem (MiB), disk (none|virtio), input (none|serial|keyboard)
#     expected   the @OUT lines that a correct machine prints, in order; empty where they depend on what is typed
#     disk.raw   only where disk is not none; never written to by a run
#
# A guest prints on ttyS0, one a line, and then powers off (ACPI S5):
#   @BEGIN name / @STEP name step seconds (guest clock) / @OUT name text / @INFO text / @END name exitcode
# @OUT lines are results, the same on every correct machine whatever its speed; @STEP and @INFO lines are not.

set -eu
# The same packages in, the same bytes out: sort order, time stamps and file-system identifiers are all fixed.
export LC_ALL=C
export E2FSPROGS_FAKE_TIME=1700000000
FILE_TIME=@1700000000

HERE=$(cd "$(dirname "$0")" && pwd)
WORK=${1:?usage: $0 WORK OUT [VARIANT]}
OUT=${2:?usage: $0 WORK OUT [VARIANT]}
ROOT=$OUT/root

say() {
    echo "[guests] $*" >&2
}

# unpack_deb DIR PACKAGE... : downloads the packages, without what they depend on, and unpacks them in DIR, once.
unpack_deb() {
    ud_dir=$1
    shift
    [ -e "$ud_dir/.done" ] && return 0
    rm -rf "$ud_dir"
    mkdir -p "$ud_dir/.debs"
    # The sandbox user of apt could not write here.
    (cd "$ud_dir/.debs" && apt-get -qq -o APT::Sandbox::User=root download "$@")
    for ud_deb in "$ud_dir"/.debs/*.deb; do
        dpkg-deb -x "$ud_deb" "$ud_dir"
    done
    rm -rf "$ud_dir/.debs"
    touch "$ud_dir/.done"
}

# foreign_architecture ARCH : lets apt see packages of ARCH with lists of its own, so that the host's dpkg and apt stay as they are.
foreign_architecture() {
    fa_state=$WORK/apt-$1
    mkdir -p "$fa_state/lists/partial" "$fa_state/cache/archives/partial"
    cat > "$fa_state/apt.conf" <<EOF
APT::Architectures { "$(dpkg --print-architecture)"; "$1"; };
Dir::State::Lists "$fa_state/lists";
Dir::Cache "$fa_state/cache";
APT::Sandbox::User "root";
EOF
    export APT_CONFIG="$fa_state/apt.conf"
    [ -e "$fa_state/.done" ] && return 0
    # A mirror in the middle of its own update fails for one suite; what the others have is good enough.
    if apt-get -qq update; then
        touch "$fa_state/.done"
    else
        say "not every package list of $1 could be fetched; going on with those that were"
    fi
}

# get_kernel FLAVOUR : cloud | amd64 | 686 | 686-pae; sets KDIR (the unpacked package) and KVER (its release).
get_kernel() {
    case $1 in
        cloud) gk_meta=linux-image-cloud-amd64 ;;
        amd64) gk_meta=linux-image-amd64 ;;
        686 | 686-pae) gk_meta=linux-image-$1:i386 ;;
        *)
            say "unknown kernel flavour $1"
            exit 2
            ;;
    esac
    # The meta package names the current ABI: linux-image-6.1.0-NN-FLAVOUR.
    gk_package=$(apt-cache depends "$gk_meta" | awk '/Depends: linux-image/ { print $2; exit }')
    KDIR=$WORK/kernel-$1
    unpack_deb "$KDIR" "${gk_package:?$gk_meta is not in the package lists: apt-get update}"
    KVER=$(ls "$KDIR/lib/modules")
}

# start_guest NAME [ARCH] : an empty root with a static busybox, and the machine that most guests want.
start_guest() {
    NAME=$1
    mkdir -p "$ROOT/bin" "$ROOT/dev" "$ROOT/proc" "$ROOT/sys" "$ROOT/tmp" "$ROOT/mnt" "$ROOT/lib/modules"
    sg_busybox=$WORK/busybox-${2:-amd64}
    unpack_deb "$sg_busybox" "busybox-static:${2:-amd64}"
    cp "$sg_busybox/bin/busybox" "$ROOT/bin/busybox"
    MEM=256
    DISK=none
    INPUT=none
    CMDLINE_EXTRA=quiet
    MODULES=
    COMPRESS=gzip
}

# script_tree : a pruned file tree with python3, gawk, sqlite3, lame and openssl; sets TREE.
script_tree() {
    TREE=$WORK/tree-script
    [ -e "$TREE.done" ] && return 0
    rm -rf "$TREE"
    say "unpacking python3, gawk, sqlite3, lame, openssl"
    mmdebstrap --quiet --variant=extract --architectures=amd64 \
        --include=python3-minimal,gawk,sqlite3,lame,openssl bookworm "$TREE" >&2
    # The whole tree sits in the guest's RAM: only what the guests run may stay.
    (
        cd "$TREE"
        rm -rf var boot home media opt srv run root dev proc sys tmp mnt etc/apt
        rm -rf usr/share/doc usr/share/man usr/share/locale usr/share/info usr/share/lintian
        rm -rf usr/share/bash-completion usr/share/zoneinfo usr/share/perl5 usr/bin/perl*
        rm -rf usr/lib/x86_64-linux-gnu/gconv usr/lib/x86_64-linux-gnu/perl-base
    )
    touch "$TREE.done"
}

# use_tree DIR : puts a file tree into the initramfs, uncompressed: unpacking gzip would be most of the guest's work.
use_tree() {
    cp -a "$1/." "$ROOT/"
    COMPRESS=none
}

# add_modules MODULE... : copies kernel modules with what they depend on; the guest's init loads them in this order.
add_modules() {
    [ -e "$KDIR/lib/modules/$KVER/modules.dep" ] || depmod -b "$KDIR" "$KVER"
    for am_module in "$@"; do
        am_files=$(modprobe -d "$KDIR" -S "$KVER" --show-depends "$am_module") || {
            say "no kernel module $am_module in $KVER"
            exit 1
        }
        for am_file in $(echo "$am_files" | awk '/^insmod/ { print $2 }'); do
            am_base=$(basename "$am_file")
            case " $MODULES " in
                *" $am_base "*) ;;
                *)
                    MODULES="$MODULES $am_base"
                    cp "$am_file" "$ROOT/lib/modules/"
                    ;;
            esac
        done
    done
}

# make_disk SIZE SEED_TREE NUMBER : an ext4 disk with the files of SEED_TREE; NUMBER makes its identifiers.
make_disk() {
    mke2fs -q -F -t ext4 -b 4096 -d "$2" \
        -U "00000000-0000-4000-8000-00000000000$3" \
        -E "hash_seed=00000000-0000-4000-8000-00000000000$(($3 + 1)),lazy_itable_init=0,lazy_journal_init=0" \
        "$OUT/disk.raw" "$1" >/dev/null
}

# early_init : reads what /init does once the file systems are there and the modules loaded.
early_init() {
    cat > "$ROOT/init" <<EOF
#!/bin/busybox sh
export PATH=/usr/bin:/usr/sbin:/bin:/sbin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0
/bin/busybox --install -s /bin 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
for m in $MODULES; do
    insmod /lib/modules/\$m
done
NAME=$NAME
EOF
    cat - >> "$ROOT/init"
    chmod +x "$ROOT/init"
}

# payload : reads the guest's work, a shell script that reports with step and out, and makes an /init around it.
payload() {
    cat > "$ROOT/work.sh"
    early_init <<'EOF'
step() {
    s_name=$1
    shift
    read s_from s_idle </proc/uptime
    "$@"
    s_result=$?
    read s_to s_idle </proc/uptime
    echo "@STEP $NAME $s_name $(awk "BEGIN { printf \"%.2f\", $s_to - $s_from }")"
    return $s_result
}
out() {
    echo "@OUT $NAME $*"
}
wait_dev() {
    w_tries=0
    while [ ! -e $1 ] && [ $w_tries -lt 100 ]; do
        sleep 0.1
        w_tries=$((w_tries + 1))
    done
    [ -e $1 ]
}
read up idle </proc/uptime
echo "@STEP $NAME uptime-at-init $up"
echo "@BEGIN $NAME"
. /work.sh
echo "@END $NAME $?"
sync
poweroff -f
EOF
}

# finish_guest : packs the root and writes the files that say how to run it.
finish_guest() {
    find "$ROOT" -exec touch -h -d "$FILE_TIME" {} +
    (cd "$ROOT" && find . | sort | cpio -o -H newc --quiet --reproducible) > "$OUT/initrd"
    if [ "$COMPRESS" = gzip ]; then
        gzip -9n "$OUT/initrd"
        mv "$OUT/initrd.gz" "$OUT/initrd"
    fi
    rm -rf "$ROOT"
    cp "$KDIR"/boot/vmlinuz-* "$OUT/kernel"
    echo "console=ttyS0,115200 panic=-1 reboot=t $CMDLINE_EXTRA" > "$OUT/cmdline"
    printf 'mem=%s\ndisk=%s\ninput=%s\n' "$MEM" "$DISK" "$INPUT" > "$OUT/machine"
    # KVER stands for the kernel's release, which a security update changes.
    sed -n "s/KVER/$KVER/; /^@OUT $NAME /p" "$HERE/expected.txt" > "$OUT/expected"
}
