#!/usr/bin/env bash
# Makes .venv with everything that developing, testing and the demo take; instant the second time.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
CONSTRAINTS=$ROOT/hack/constraints.txt
LOG=$PIPPIN_CACHE/logs/venv.log
STAMP=$VENV/.installed

# find_python: print a Python that is new enough and can make environments.
find_python() {
  local candidate seen=''
  for candidate in ${PIPPIN_PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
      2>/dev/null; then
      command -v "$candidate" && return
    fi
    seen="$seen $("$candidate" --version 2>/dev/null || true)"
  done
  die "Python 3.11 or newer with the modules venv and ensurepip is needed; found:${seen:- none}" \
    "Install one (on Debian and Ubuntu: apt-get install python3 python3-venv)," \
    "or name it: PIPPIN_PYTHON=/path/to/python3"
}

install() {
  "$VENV/bin/python" -m pip install -q --disable-pip-version-check -c "$CONSTRAINTS" uv
  # The system's certificates, as pip takes them: there may be an authority of the house among them.
  "$VENV/bin/uv" pip install --system-certs --python "$VENV/bin/python" -c "$CONSTRAINTS" \
    -e "${ROOT}[dev]"
}

fingerprint() { cat "$ROOT/pyproject.toml" "$CONSTRAINTS" "$VENV/pyvenv.cfg" 2>/dev/null | sha256; }

if [ -f "$STAMP" ] && [ "$(fingerprint)" = "$(cat "$STAMP")" ]; then exit 0; fi
mkdir -p "$(dirname "$LOG")"
exec 9<"$ROOT" # a lock that leaves no file
locked 9 "      another run is installing; waiting for it"
if [ ! -x "$VENV/bin/python" ]; then
  python=$(find_python) || exit 1
  "$python" -m venv "$VENV"
fi
cd "$ROOT"
if ! watched "Python packages" "$LOG" install; then
  tail -n 15 "$LOG" >&2
  die "installing Pippin into .venv failed; the whole log is $LOG" \
    "Check the network (the Python package index must answer), then run again."
fi
fingerprint >"$STAMP"
