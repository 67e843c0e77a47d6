#!/bin/sh
# shell.sh WORK OUT - an interactive busybox shell on ttyS0 with the prompt "gemel# "; "poweroff -f" ends it
. "$(dirname "$0")/initramfs.sh"
get_kernel cloud
start_guest shell
INPUT=serial
# The shell's line editor asks the terminal where its cursor is (ESC [6n). The answer would reach the guest as input that nobody
# typed, or the user's own shell once the machine is gone, so the question becomes an empty string.
sed -i 's/\x1b\[6n/\x00[6n/' "$ROOT/bin/busybox"
early_init <<'P'
export PS1='gemel# ' HOME=/ TERM=vt100
# A serial line has no size of its own; 0 columns would make the shell's editor redraw what is typed.
stty cols 200 rows 50 </dev/ttyS0
echo "Linux $(uname -r), busybox. 'poweroff -f' ends it."
# A shell that is left is started again. It needs a session of its own for Ctrl-C to work.
while :; do
    setsid cttyhack sh
done
P
finish_guest
