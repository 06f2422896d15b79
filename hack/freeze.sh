#!/usr/bin/env bash
# Writes down exact versions: those of the development environment as it is now, in
# hack/constraints.txt, and those that an engine's pin leads to, in server-image/engines/*.txt.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
{
  say "# Exact versions of the development environment, written by hack/freeze.sh."
  "$VENV/bin/uv" pip freeze --python "$VENV/bin/python" --exclude-editable -q
} >hack/constraints.txt
for pin in server-image/engines/*.in; do
  engine=${pin%.in}
  overrides=()
  if [ -f "$engine.overrides" ]; then overrides=(--override "$engine.overrides"); fi
  {
    say "# Exact versions for the engine ${engine##*/}, written by hack/freeze.sh from ${pin##*/}."
    "$VENV/bin/uv" pip compile -q --system-certs --universal --python-version 3.11 --no-header \
      --no-annotate "${overrides[@]}" --extra server pyproject.toml "$pin"
  } >"$engine.new"
  mv "$engine.new" "$engine.txt"
done
