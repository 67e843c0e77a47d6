# shellcheck shell=bash
# packages.sh - need PACKAGE... makes sure that Debian packages are there. Sourced by bash scripts.
#
# Not responsible for knowing who needs what. Installs only what is missing, and only as root; anybody else gets the line to type.

# need PACKAGE... : every package is installed afterwards, and apt has package lists
need() {
    local missing=() package
    if ! command -v apt-get > /dev/null; then
        echo "[setup] this needs a Debian machine (apt-get is not here) with: $*" >&2
        return 1
    fi
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    if [ "$(id -u)" != 0 ]; then
        if [ ${#missing[@]} -gt 0 ]; then
            echo "[setup] packages are missing. Run: sudo apt-get update && sudo apt-get install ${missing[*]}" >&2
            return 1
        fi
        return 0
    fi
    # A fresh image of Debian comes without package lists, and old lists name files that the mirror no longer has. Guests are
    # built from downloads, so this matters even where nothing is missing.
    if ! apt-cache show linux-image-cloud-amd64 > /dev/null 2>&1 ||
        [ -n "$(find /var/lib/apt/lists -maxdepth 0 -mtime +7)" ]; then
        echo "[setup] fetching package lists" >&2
        apt-get -qq update >&2 || echo "[setup] not every list could be fetched; going on with those that are here" >&2
    fi
    [ ${#missing[@]} -eq 0 ] && return 0
    echo "[setup] installing ${missing[*]}" >&2
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install -y --no-install-recommends "${missing[@]}" \
        < /dev/null > /dev/null
}

# need_rust : cargo is on the PATH, and the C compiler that rustc links with is there
need_rust() {
    if ! command -v cargo > /dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH=$HOME/.cargo/bin:$PATH
    fi
    if ! command -v cargo > /dev/null; then
        echo "[setup] cargo is not here. Install Rust from https://rustup.rs and start this again." >&2
        return 1
    fi
    command -v cc > /dev/null || need gcc libc6-dev
}
