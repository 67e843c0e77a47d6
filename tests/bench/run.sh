#!/bin/bash
# run.sh [--runs N] [--json] [--no-bochs] [--only speed|idle|echo|ring3,...] - measures Gemel, in turn with Debian's Bochs 2.7, and
# prints a table of medians
#
# Guest instructions per second on a kernel boot and on integer work, what recording and replaying cost, what ten idle seconds
# cost, how large the log of a boot with ten idle seconds is, how long a typed byte takes to its echo,
# what ring 3 costs under KVM while it is recorded against the same code as a process. A round takes about five minutes, most of them Bochs; N is 3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=../packages.sh
. tests/packages.sh
need_rust
case " $* " in
    *" --no-bochs "*) ;;
    *) need bochs bochs-term bochsbios vgabios isolinux syslinux-common xorriso ;;
esac
cargo build --release --locked -p gemel >&2
tests/guests/build.sh boot-cloud cpu-int idle shell > /dev/null
exec cargo run --release --locked --quiet -p gemel-system-tests --bin gemel-bench -- "$@"
