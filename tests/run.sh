#!/bin/bash
# run.sh [--all] - sets up what is needed, builds, and runs every test
#
#   (nothing)  formatting, lints, unit tests, and the representative part of the whole-system matrix
#   --all      every guest of the matrix in every role as well, and 150 failovers; takes hours of one core
# Works in a fresh clone. Exits 0 only if everything passed; a test that cannot run here says so and why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
GUESTS=fast
for argument in "$@"; do
    case $argument in
        --all)
            GUESTS=all
            export GEMEL_MATRIX=all
            ;;
        *)
            sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
            exit 2
            ;;
    esac
done

# shellcheck source=packages.sh
. tests/packages.sh
need_rust
tests/setup.sh
FAILED=()
# Every step runs, so that one run shows all that is wrong.
step() {
    echo "== $*" >&2
    "$@" < /dev/null || FAILED+=("$*")
}
step cargo fmt --all --check
step cargo clippy --workspace --all-targets --locked -- -D warnings
step cargo build --release --locked -p gemel
step tests/guests/build.sh "$GUESTS"
# Not --release: overflow checks and debug assertions find more, and the whole-system tests run the release binary anyway.
step cargo test --workspace --locked --no-fail-fast
# A few faults of each kind are among the tests above.
if [ "$GUESTS" = all ]; then
    step cargo test --locked -p gemel-system-tests --test failover -- --kills 50 --stops 20 --secondary-kills 20 --disk-kills 20 --engine-kills 10
fi

if [ ${#FAILED[@]} -gt 0 ]; then
    printf 'FAILED: %s\n' "${FAILED[@]}" >&2
    exit 1
fi
echo "everything passed" >&2
