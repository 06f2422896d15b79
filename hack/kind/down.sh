#!/usr/bin/env bash
# Removes the kind cluster; where the engine is our own, ends it and puts back what it touched.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$HERE/../lib.sh"
# shellcheck source=hack/kind/engine.sh
. "$HERE/engine.sh"
# shellcheck source=hack/kind/lib.sh
. "$HERE/lib.sh"

if host_docker || engine_answers; then
  # By kind's own label, so that no kind is needed to remove what is left of a cluster.
  mapfile -t containers < <(in_engine docker ps -aq --filter "label=io.x-k8s.kind.cluster=$CLUSTER")
  [ ${#containers[@]} -eq 0 ] || in_engine docker rm -f -v "${containers[@]}" >/dev/null
fi
rm -rf "$KIND_HOME"
if ! host_docker; then engine_down; fi
