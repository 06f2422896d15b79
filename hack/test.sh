#!/usr/bin/env bash
# Runs the tests and what they need first.
#
#   test.sh           everything: the sources judged, then every layer of tests
#   test.sh embedded  everything that needs no containers
#   test.sh unit      what needs no cluster and no model; seconds
#   test.sh node      the node agent, also on a Mac
#   test.sh vllm      the server with vLLM's build for CPUs, which is 5 GB
#   test.sh e2e       the whole product on a cluster of its own (or on $KUBECONFIG)
set -euo pipefail
# shellcheck source=hack/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

# phase LABEL COMMAND...: one part of the run, with its time.
phase() {
  local label=$1 begun=$SECONDS
  shift
  say "==> $label"
  "$@"
  say "<== $label: $((SECONDS - begun)) s"
}

# Most tests wait most of the time. The order is that of tests/conftest.py.
TWO_AT_ONCE=(--numprocesses=2 --dist=loadscope --no-loadscope-reorder)

run_pytest() {
  # Nobody's cluster but our own is touched unless that is what was asked for.
  if [ "$LAYER" != e2e ]; then unset KUBECONFIG; fi
  "$VENV/bin/python" -m pytest "$@"
}

# kind_possible: KIND is set where containers can run. CI has no excuse.
kind_possible() {
  local why
  if why=$(hack/kind/up.sh --check 2>&1); then
    KIND=yes
  elif [ -n "${CI:-}" ]; then
    die "containers cannot run here, and CI leaves nothing out" "$why"
  else
    say "containers cannot run here, so the suite on kind is left out: $(head -n 1 <<<"$why")"
  fi
}

# on_kind: the end-to-end suite in containers, on a cluster that goes unless it was up before.
on_kind() {
  if ! [ -f .pippin/kind/kubeconfig ]; then trap 'phase "kind ends" hack/kind/down.sh' EXIT; fi
  phase "kind cluster" hack/kind/up.sh
  phase "tests on kind" env --unset=PIPPIN_E2E_KIND_FOLLOWS hack/kind/e2e.sh --durations=10
}

with_vllm() {
  phase "vLLM" hack/vllm.sh
  phase weights "$VENV/bin/python" hack/weights.py
  phase "tests with vLLM" run_pytest --durations=10 tests/vllm "${TWO_AT_ONCE[@]}"
}

LAYER=${1:-all}
phase environment hack/venv.sh
case $LAYER in
unit) run_pytest tests/unit tests/wire ;;
node)
  phase programs hack/tools/build.sh
  run_pytest tests/unit/node tests/node
  ;;
e2e)
  phase programs hack/tools/build.sh
  phase weights "$VENV/bin/python" hack/weights.py
  run_pytest tests/e2e
  ;;
vllm) with_vllm ;;
all | embedded)
  if [ "$LAYER" = all ]; then kind_possible; fi
  # What runs in containers later is not run on the embedded cluster before.
  if [ -n "${KIND:-}" ]; then export PIPPIN_E2E_KIND_FOLLOWS=yes; fi
  phase lint hack/lint.sh
  phase programs hack/tools/build.sh
  phase redis hack/redis.sh
  phase moto hack/moto.sh
  phase weights "$VENV/bin/python" hack/weights.py
  phase tests run_pytest --durations=10 --ignore=tests/vllm "${TWO_AT_ONCE[@]}"
  if [ "$LAYER" = all ] && [ "$(uname -sm)" = "Linux x86_64" ]; then with_vllm; fi
  if [ -n "${KIND:-}" ]; then on_kind; fi
  ;;
*) die "no such tests: $LAYER (say embedded, unit, node, vllm, e2e or nothing)" ;;
esac
