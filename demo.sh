#!/bin/bash
# demo.sh [ARGUMENTS OF gemel demo...] - a guest survives the death of the machine that runs it, before your eyes
#
# Sets up what it needs, builds Gemel, builds a small Debian guest, and runs it as a pair of processes. With --kernel (and
# --initrd, --append, --drive) your own guest runs instead. Exits 0 only if no line of the guest was lost, repeated or changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=tests/packages.sh
. tests/packages.sh
need_rust
cargo build --release --locked -p gemel >&2
GEMEL=${CARGO_TARGET_DIR:-target}/release/gemel
case " $* " in
    *" --kernel"[\ =]* | *" --help "* | *" -h "*) exec "$GEMEL" demo "$@" ;;
esac
GUEST=$(tests/guests/build.sh shell)
exec "$GEMEL" demo --kernel "$GUEST/kernel" --initrd "$GUEST/initrd" --append "$(cat "$GUEST/cmdline")" "$@"
