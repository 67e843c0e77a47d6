#!/bin/sh
# idle.sh WORK OUT - sleeps for ten seconds; what they cost the host is the result
. "$(dirname "$0")/initramfs.sh"
get_kernel cloud
start_guest idle
payload <<'P'
step sleep sleep 10
out done
P
finish_guest
