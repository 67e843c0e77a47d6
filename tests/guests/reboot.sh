#!/bin/sh
# reboot.sh WORK OUT - boots, resets the machine, boots again and ends; what it wrote to its RTC, which a reset leaves alone, tells the two apart
# With "reboot=t" on its command line the kernel resets by a triple fault.
. "$(dirname "$0")/initramfs.sh"
get_kernel cloud
start_guest reboot
payload <<'P'
if [ "$(date +%Y)" -lt 2040 ]; then
    out "boot 1"
    date -s "2040-01-01 00:00:00" >/dev/null
    hwclock -w -u
    reboot -f
fi
out "boot 2, $(date +%Y)"
P
finish_guest
