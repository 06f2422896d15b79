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

end_policies
if host_docker || engine_answers; then remove_cluster; fi
rm -rf "$KIND_HOME"
if ! host_docker; then engine_down; fi
