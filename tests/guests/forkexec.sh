#!/bin/sh
# forkexec.sh WORK OUT - process creation: exec of a static and of a dynamic program, subshells, pipelines
. "$(dirname "$0")/initramfs.sh"
get_kernel cloud
script_tree
start_guest forkexec
use_tree "$TREE"
payload <<'P'
step exec-static sh -c 'i=0; while [ $i -lt 1500 ]; do /bin/busybox true; i=$((i+1)); done'
step exec-dynamic sh -c 'i=0; while [ $i -lt 150 ]; do /usr/bin/gawk "BEGIN{exit 0}"; i=$((i+1)); done'
step fork-only sh -c 'i=0; while [ $i -lt 2000 ]; do (:); i=$((i+1)); done'
step pipeline sh -c 'i=0; while [ $i -lt 300 ]; do echo $i | cat | cat >/dev/null; i=$((i+1)); done'
step python-start sh -c 'i=0; while [ $i -lt 10 ]; do python3 -S -c pass; i=$((i+1)); done'
out done
P
finish_guest
