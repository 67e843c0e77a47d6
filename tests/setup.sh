#!/bin/bash
# setup.sh - what the tests need of the host: a Rust toolchain with its linker, and Debian packages. Idempotent.
# Guests install what their building takes by themselves (guests/build.sh), and so does the benchmark (bench/run.sh).
set -euo pipefail
# shellcheck source=packages.sh
. "$(dirname "${BASH_SOURCE[0]}")/packages.sh"
need_rust
for component in fmt clippy; do
    cargo "$component" --version > /dev/null 2>&1 && continue
    rustup component add "${component/fmt/rustfmt}" || {
        echo "[setup] cargo $component is not here. Run: rustup component add ${component/fmt/rustfmt}" >&2
        exit 1
    }
done
# iasl reads the ACPI tables that the board writes
need acpica-tools
# a pair's arbiter can be an etcd
need etcd-server
