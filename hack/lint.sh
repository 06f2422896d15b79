#!/usr/bin/env bash
# Everything that judges the sources without running them.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
PATH=$VENV/bin:$PATH

ruff check
ruff format --check
mypy
lint-imports
vulture
shellcheck -x hack/*.sh hack/tools/*.sh .ci/run
