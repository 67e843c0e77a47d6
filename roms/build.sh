#!/bin/bash
# build.sh [-o DIR] [NAME...] - assembles and links the kernels, all of them if none is named; prints each file
#
# Default DIR: target/roms. Needs cc (for the C preprocessor and as) and ld, which Rust needs too. A kernel is a folder, all
# sources in it; `native` is the work of the kernel `compute` as a Linux program.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
OUT=../target/roms
if [ "${1-}" = -o ]; then
    OUT=$2
    shift 2
fi
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)

# kernel NAME FOLDER [FLAG...]: links every source of the folder
kernel() {
    local name=$1 folder=$2 source objects=() work
    shift 2
    work=$(mktemp -d)
    for source in "$folder"/*.S; do
        cc -c -x assembler-with-cpp -Iinclude "$@" -o "$work/$(basename "$source").o" "$source"
        objects+=("$work/$(basename "$source").o")
    done
    ld -m elf_x86_64 -static -nostdlib --no-warn-rwx-segments -z max-page-size=4096 -z noexecstack --build-id=none \
        -T kernel.ld -o "$work/kernel" "${objects[@]}"
    # Whoever starts it while it is made again has the old one or the new one.
    mv "$work/kernel" "$OUT/$name"
    rm -r "$work"
    echo "$OUT/$name"
}

build() {
    case $1 in
        realmode | protected | longmode | compute | lines | leaks) kernel "$1" "$1" ;;
        paging-pse) kernel "$1" paging ;;
        paging-pae) kernel "$1" paging -DPAE ;;
        native)
            cc -O2 -DFOR_LINUX -Iinclude -o "$OUT/native" compute/native.c compute/work.S
            echo "$OUT/native"
            ;;
        *)
            echo "build.sh: there is no kernel $1" >&2
            return 2
            ;;
    esac
}

[ $# -gt 0 ] || set -- realmode protected paging-pse paging-pae longmode compute lines leaks
for name in "$@"; do
    build "$name"
done
