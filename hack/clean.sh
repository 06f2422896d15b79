#!/usr/bin/env bash
# Removes what building and testing left in the checkout; never a demo, never the cache.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
if [ -d "${PIPPIN_STATE:-.pippin}/demo" ]; then
  die "a demo is there" "Run make demo-down first."
fi
rm -rf .venv .venv-vllm .pippin .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
  .grimp_cache dist
find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
