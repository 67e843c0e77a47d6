#!/bin/sh
# check.sh GUEST_DIR SERIAL_LOG - exits 0 when the log has exactly the expected @OUT lines, in order, and the guest ended with 0
set -eu
DIR=$1
LOG=$(mktemp)
trap 'rm -f "$LOG"' EXIT
tr -d '\r' < "$2" > "$LOG"
bad=0
if ! grep -a '^@OUT' "$LOG" | diff -u "$DIR/expected" -; then
    echo "the results differ from $DIR/expected"
    bad=1
fi
if ! grep -aqE '^@END [a-z0-9-]+ 0$' "$LOG"; then
    echo "no clean @END"
    bad=1
fi
[ $bad = 1 ] || echo ok
exit $bad
