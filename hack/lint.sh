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
mypy hack/docs.py hack/generate-crds.py
lint-imports --no-logo
unused=$(vulture | grep -vE "unused (variable|attribute) '.*' \(60%" || true)
if [ -n "$unused" ]; then die "dead code:" "$unused"; fi
for schema in vendor.github-workflows custom.github-workflows-require-timeout; do
  check-jsonschema -q --builtin-schema "$schema" .github/workflows/*.yaml
done
mapfile -t scripts < <(find hack -name '*.sh')
shellcheck -x .ci/run "${scripts[@]}"
