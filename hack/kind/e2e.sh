#!/usr/bin/env bash
# The end-to-end suite on the kind cluster: the same tests as on the embedded one.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$HERE/../lib.sh"

gateway=$("$HERE/install.sh" | tail -n 1)
# The nodes see the cache of the weights as /models.
model=$("$VENV/bin/python" "$ROOT/hack/weights.py" | tail -n 1)
cd "$ROOT"
PIPPIN_E2E_GATEWAY_URL=$gateway PIPPIN_E2E_SAME_MACHINE=1 \
  PIPPIN_E2E_WEIGHTS_URI=file:///models/${model#"$PIPPIN_CACHE/models/"} \
  "$HERE/in.sh" "$VENV/bin/python" -m pytest tests/e2e "$@"
