#!/usr/bin/env bash
# Everything that judges the sources without running them.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
PATH=$VENV/bin:$PATH

types() {
  mypy
  mypy hack/docs.py hack/generate-crds.py
}

# finish: what the types are like is told also when something else is wrong.
finish() {
  local status=$?
  wait "$typing" || status=$?
  cat "$told"
  rm -f "$told"
  exit "$status"
}

# They take as long as all the rest, on a core each.
told=$(mktemp)
types >"$told" 2>&1 &
typing=$!
trap finish EXIT

ruff check
ruff format --check
lint-imports --no-logo
unused=$(vulture | grep -vE "unused (variable|attribute) '.*' \(60%" || true)
if [ -n "$unused" ]; then die "dead code:" "$unused"; fi
for schema in vendor.github-workflows custom.github-workflows-require-timeout; do
  check-jsonschema -q --builtin-schema "$schema" .github/workflows/*.yaml
done
mapfile -t scripts < <(find hack -name '*.sh')
shellcheck -x .ci/run "${scripts[@]}"
