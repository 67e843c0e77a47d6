#!/bin/bash
# build.sh [-o DIR] [NAME...] - builds guests from Debian packages and prints the folder of each
#
# NAME is a guest, or a set: fast (default) or all. DIR is by default $GEMEL_GUESTS, else target/guests of this repository.
# A guest whose scripts have not changed is not built again. Needs Debian's apt; installs what is missing if it may.
# Two runs may start at once: the second waits. A guest's folder appears whole or not at all.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../packages.sh
. "$HERE/../packages.sh"
FAST="boot-cloud cpu-int idle interact disk-virtio shell lines reboot blocks net-echo"
SLOW="boot-amd64 boot-686 boot-686-pae cpu-fp syscall forkexec pagefault apps-run apps-systemd services"
WORK=${GEMEL_GUESTS:-$HERE/../../target/guests}

say() {
    echo "[guests] $*" >&2
}

# The builder and its variant, and the host packages that it needs beside cpio and gzip
recipe() {
    case $1 in
        boot-cloud) echo "boot.sh cloud" ;;
        boot-amd64) echo "boot.sh amd64" ;;
        boot-686) echo "boot.sh 686" ;;
        boot-686-pae) echo "boot.sh 686-pae" ;;
        disk-virtio) echo "disk.sh virtio" ;;
        apps-run) echo "apps.sh run" ;;
        apps-systemd) echo "apps.sh systemd" ;;
        cpu-int | cpu-fp | syscall | forkexec | pagefault | idle | interact | shell | lines | reboot | blocks | services | net-echo) echo "$1.sh" ;;
        *) return 1 ;;
    esac
}
host_packages() {
    case $1 in
        cpu-fp | forkexec | pagefault) echo "cpio mmdebstrap" ;;
        blocks | net-echo) echo "cpio kmod" ;;
        disk-virtio | services | apps-*) echo "cpio mmdebstrap kmod e2fsprogs" ;;
        *) echo "cpio" ;;
    esac
}

# Stamps hash what a guest is made from: an image of other scripts is never taken for this one.
stamp() {
    read -r builder variant <<< "$(recipe "$1")"
    {
        cat "$HERE/initramfs.sh" "$HERE/$builder"
        echo "$variant"
        grep "^@OUT $1 " "$HERE/expected.txt" || true
    } | sha256sum | cut -d ' ' -f 1
}
is_current() {
    [ "$(cat "$WORK/$1/stamp" 2>/dev/null)" = "$(stamp "$1")" ]
}

# Builds beside the final place and renames; a run that reads the old image keeps its open files.
build() {
    local name=$1 builder variant temporary
    read -r builder variant <<< "$(recipe "$name")"
    say "building $name"
    temporary=$WORK/.new-$name
    rm -rf "$temporary" "$WORK/.old-$name"
    mkdir -p "$temporary"
    # shellcheck disable=SC2086  # no variant, no argument
    "$HERE/$builder" "$WORK" "$temporary" $variant
    stamp "$name" > "$temporary/stamp"
    [ ! -e "$WORK/$name" ] || mv "$WORK/$name" "$WORK/.old-$name"
    mv "$temporary" "$WORK/$name"
    rm -rf "$WORK/.old-$name"
}

if [ "${1:-}" = -o ]; then
    WORK=$2
    shift 2
fi
NAMES=()
for argument in "${@:-fast}"; do
    # shellcheck disable=SC2206  # the sets are lists of words
    case $argument in
        fast) NAMES+=($FAST) ;;
        all) NAMES+=($FAST $SLOW) ;;
        *)
            if ! recipe "$argument" > /dev/null; then
                say "no guest named '$argument'. There are: $FAST $SLOW"
                exit 2
            fi
            NAMES+=("$argument")
            ;;
    esac
done
mkdir -p "$WORK"
WORK=$(cd "$WORK" && pwd)

outdated() {
    local name
    for name in "${NAMES[@]}"; do
        is_current "$name" || echo "$name"
    done
}
if [ -n "$(outdated)" ]; then
    exec 9> "$WORK/.lock"
    flock 9
    # Asked again: another run may have built them while this one waited.
    mapfile -t TODO < <(outdated)
    if [ ${#TODO[@]} -gt 0 ]; then
        # shellcheck disable=SC2046  # a list of words
        need $(for name in "${TODO[@]}"; do host_packages "$name"; done | tr ' ' '\n' | sort -u)
        for name in "${TODO[@]}"; do
            build "$name"
        done
    fi
fi
for name in "${NAMES[@]}"; do
    echo "$WORK/$name"
done
