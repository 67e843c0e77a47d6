#!/bin/sh
# interact.sh WORK OUT - echoes lines typed on the serial port, then single keys typed on the PS/2 keyboard
# It prints "@READY serial" and answers each line L with "GOT L" until the line "next"; then it prints "@READY keyboard" and
# answers each key C typed on tty1 with "KEY C" on ttyS0 until the key "q". It expects 200 lines and 100 keys.
. "$(dirname "$0")/initramfs.sh"
get_kernel cloud
start_guest interact
INPUT=keyboard
payload <<'P'
exec 3</dev/ttyS0
stty -echo <&3
echo "@READY serial"
n=0
while read -r line <&3 && [ "$line" != next ]; do
    echo "GOT $line"
    n=$((n + 1))
done
out "lines $n"
# Held open: tty1 forgets its settings when its last opener closes it.
exec 4</dev/tty1
stty -icanon -echo min 1 <&4
echo "@READY keyboard"
n=0
while key=$(dd bs=1 count=1 2>/dev/null <&4) && [ "$key" != q ]; do
    echo "KEY $key"
    n=$((n + 1))
done
out "keys $n"
P
finish_guest
