#!/bin/sh
# lines.sh WORK OUT - prints "LINE n" every 10 ms of guest time and answers each typed line L with "GOT L" until the line "quit"
# Made for failover: the numbers show what was lost, repeated or changed on the way out, the answers what was on the way in.
# "@READY lines" says that it listens; the last LINE comes before "@INFO printed LINES heard TYPED".
. "$(dirname "$0")/initramfs.sh"
get_kernel cloud
start_guest lines
INPUT=serial
payload <<'P'
exec 3</dev/ttyS0
stty -echo <&3
# A read from a pipe in which nobody writes is a sleep without a new process: the rate must not hang on the price of fork.
mkfifo /tmp/silence
number() {
    n=0
    while [ ! -e /tmp/stop ]; do
        n=$((n + 1))
        echo "LINE $n"
        read -r -t 0.01 nothing <>/tmp/silence
    done
    echo $n >/tmp/printed
}
echo "@READY lines"
number &
heard=0
while read -r line <&3 && [ "$line" != quit ]; do
    echo "GOT $line"
    heard=$((heard + 1))
done
touch /tmp/stop
wait
echo "@INFO printed $(cat /tmp/printed) heard $heard"
out done
P
finish_guest
