#!/usr/bin/env bash
# From an empty machine to a real model's answer; the cluster stays up. PIPPIN_STATE says where.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
STATE=${PIPPIN_STATE:-$ROOT/.pippin}/demo

say "Pippin on this machine, in $STATE"
say "[1/6] tools: Python packages and the Kubernetes programs, built once into $PIPPIN_CACHE"
"$ROOT/hack/venv.sh"
"$ROOT/hack/tools/build.sh" | sed '$d'
say "      done in $SECONDS s"
cd "$ROOT"
PYTHONPATH=$ROOT/hack exec "$VENV/bin/python" -m demo up "$STATE"
