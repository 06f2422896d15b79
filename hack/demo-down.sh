#!/usr/bin/env bash
# Ends the demo and removes everything that it made, and nothing else. The cache stays.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
STATE=${PIPPIN_STATE:-$ROOT/.pippin}/demo

"$ROOT/hack/venv.sh"
PYTHONPATH=$ROOT/hack exec "$VENV/bin/python" -m demo down "$STATE"
