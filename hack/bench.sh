#!/usr/bin/env bash
# Prints how fast the parts are, one after the other. Alone on the machine, or the figures mislead.
#
#   bench.sh [NAME...]   only tests/bench/bench_NAME.py
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
hack/venv.sh
hack/tools/build.sh >/dev/null
"$VENV/bin/python" hack/weights.py >/dev/null
if [ $# -eq 0 ]; then
  for file in tests/bench/bench_*.py; do
    name=${file##*/bench_}
    set -- "$@" "${name%.py}"
  done
fi
for name in "$@"; do
  if [ "$name" = vllm ]; then hack/vllm.sh; fi
  say "==> $name"
  "$VENV/bin/python" "tests/bench/bench_$name.py"
done
