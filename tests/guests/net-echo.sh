#!/bin/sh
# net-echo.sh WORK OUT - echoes on TCP port 7 whatever it is sent, at 10.0.2.15 behind a network interface, until the line "quit" is typed
# "@READY net-echo" says that it listens.
. "$(dirname "$0")/initramfs.sh"
get_kernel cloud
start_guest net-echo
INPUT=serial
add_modules virtio_pci virtio_net
payload <<'P'
exec 3</dev/ttyS0
stty -echo <&3
wait_dev /sys/class/net/eth0
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
nc -ll -p 7 -e cat &
echo "@READY net-echo"
while read -r line <&3 && [ "$line" != quit ]; do
    echo "GOT $line"
done
out done
P
finish_guest
