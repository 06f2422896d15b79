#!/usr/bin/env bash
# Mixed traffic through two gateways whose replicas and Redis are killed and come back, for long.
#
#   soak.sh [SECONDS]   600 without
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
hack/venv.sh
hack/tools/build.sh >/dev/null
PIPPIN_SOAK_SECONDS=${1:-600} "$VENV/bin/python" -m pytest -s --timeout=0 tests/gateway/test_soak.py
