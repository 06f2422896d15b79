#!/usr/bin/env bash
# Writes hack/constraints.txt: the exact versions that are in the environment now.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
{
  say "# Exact versions of the development environment, written by hack/freeze.sh."
  "$VENV/bin/uv" pip freeze --python "$VENV/bin/python" --exclude-editable -q
} >"$ROOT/hack/constraints.txt"
