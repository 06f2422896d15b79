#!/usr/bin/env bash
# Brings the sources into shape.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
"$VENV/bin/ruff" check --fix
"$VENV/bin/ruff" format
