#!/usr/bin/env bash
# Prints the path of a Python with moto in it, an S3 server for the tests; installs it the first time.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PINS=$ROOT/hack/moto.txt
LOG=$PIPPIN_CACHE/logs/moto.log

install() {
  "$VENV/bin/uv" venv -q --clear --python "$VENV/bin/python" "$HOME_OF_MOTO.new"
  "$VENV/bin/uv" pip install --system-certs --python "$HOME_OF_MOTO.new/bin/python" --no-deps \
    --compile-bytecode -r "$PINS"
  mv "$HOME_OF_MOTO.new" "$HOME_OF_MOTO"
}

HOME_OF_MOTO=$PIPPIN_CACHE/moto/$({ cat "$PINS" && "$VENV/bin/python" -VV; } | sha256 | cut -c 1-12)
mkdir -p "$(dirname "$LOG")" "$PIPPIN_CACHE/moto"
exec 9>"$PIPPIN_CACHE/moto/.lock"
locked 9 "      another run is installing; waiting for it" >&2
if ! [ -d "$HOME_OF_MOTO" ]; then
  watched moto "$LOG" install >&2 ||
    die "installing moto failed; the log is $LOG" \
      "Check the network (the Python package index must answer), then run again."
fi
say "$HOME_OF_MOTO/bin/python"
