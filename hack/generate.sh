#!/usr/bin/env bash
# Writes everything that is generated: CRDs and their copies in the chart, tables, reference pages.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
"$VENV/bin/python" hack/generate-crds.py "$@"
"$VENV/bin/python" hack/docs.py "$@"
